"""Both loops in one uWSGI, and `/observe/`: what the process counts, holds and uses, as JSON."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import resource
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from django.db.backends.signals import connection_created

from tests.wsgi_both import application as both_loops
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.servers.process import existing_hub
from ws4redis.servers.statistics import get_statistics

_database_connections: list[object] = []


def _note_connection(connection: object, **kwargs: object) -> None:
    _database_connections.append(connection)


connection_created.connect(_note_connection)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer `/observe/`, and leave the rest to the application under test."""
    if environ['PATH_INFO'] != '/observe/':
        return both_loops(environ, start_response)
    answer = observe(with_objects='objects' in parse_qs(environ['QUERY_STRING']))
    start_response('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps(answer).encode()]


def observe(*, with_objects: bool = False) -> dict[str, Any]:
    """Return statistics, and with them what leaks would show in."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hub = existing_hub()
    answer: dict[str, Any] = {
        'statistics': get_statistics(),
        'descriptors': len(descriptors := open_files()),
        'database_descriptors': sum(name.endswith('sqlite3') for name in descriptors),
        'database_connections_made': len(_database_connections),
        'rss_bytes': resident_bytes(),
        'cpu_seconds': usage.ru_utime + usage.ru_stime,
        'places': connection_limits.taken,
    }
    if hub is not None:
        answer |= {'timers': len(hub.loop.timers), 'handlers': len(hub.loop.handlers)}
    if with_objects:
        gc.collect()
        counts = Counter(type(thing).__name__ for thing in gc.get_objects())
        answer['objects'] = counts.total()
        answer['websocket_objects'] = counts['WebSocket']
        del counts
        give_back_freed_memory()
        answer['rss_bytes'] = resident_bytes()
    return answer


def give_back_freed_memory() -> None:
    """Let the C library return what has been freed, so that it does not look like in use."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def open_files() -> list[str]:
    """Return what the descriptors of this process are."""
    names = []
    for path in Path('/proc/self/fd').iterdir():
        with contextlib.suppress(OSError):
            names.append(str(path.readlink()))
    return names


def resident_bytes() -> int:
    """Return how much memory this process has resident."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize()

"""What uWSGI's options mean for websockets: asked at the start, at a handshake, and by the doctor.

At the start they are ``uwsgi.opt``, for the doctor the lines of an ini file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_FALSE = {'0', 'false', 'no', 'off'}
_CONCURRENCY = ('gevent', 'threads', 'enable-threads')
_ROUTERS = ('http', 'https')
# By these the workers listen themselves, besides what the router passes on to them.
_SOCKETS = ('http-socket', 'http11-socket', 'socket', 'uwsgi-socket')

_RECYCLING = {
    'max-requests': 'after so many requests',
    'max-worker-lifetime': 'after so many seconds',
    'idle': 'after so many seconds without a request',
    'cheaper': 'when few requests come',
}
_RECYCLING_PREFIXES = ('reload-on-', 'evil-reload-on-', 'brutal-reload-on-')


@dataclass(frozen=True, slots=True)
class Concern:
    """Something about the options that websockets do not get on with.

    One that ``is_fatal`` lets no websocket work.
    """

    text: str
    remedy: str
    is_fatal: bool = False

    def __str__(self) -> str:
        return f'{self.text}. {self.remedy}'


def concerns_about(options: Mapping[str, Any]) -> Iterator[Concern]:
    """Yield what is wrong with the options of a uWSGI that runs the websocket loop."""
    yield from _concurrency(options)
    yield from _router(options)
    yield from _https_socket(options)
    yield from _recycling(options)
    yield from _monkey_patching(options)


def fatal_concern(options: Mapping[str, Any]) -> Concern | None:
    """Return the first reason why no websocket can work, if there is one."""
    return next((concern for concern in concerns_about(options) if concern.is_fatal), None)


def is_on(options: Mapping[str, Any], name: str) -> bool:
    """Tell whether an option is given, and not switched off."""
    if name not in options:
        return False
    value = options[name]
    text = value.decode(errors='replace') if isinstance(value, bytes) else str(value)
    return text.strip().lower() not in _FALSE


def _concurrency(options: Mapping[str, Any]) -> Iterator[Concern]:
    if not any(is_on(options, name) for name in _CONCURRENCY):
        yield Concern(
            'uWSGI lets no thread run beside its requests, so it cannot serve websockets',
            'Start it with --gevent 100 (recommended), --threads 10 or --enable-threads.',
            is_fatal=True,
        )
    elif not any(is_on(options, name) for name in ('gevent', 'threads')):
        yield Concern(
            'uWSGI answers handshakes one at a time',
            'Add --gevent 100 (or --threads 10), which bounds the handshakes, not the websockets.',
        )


def _router(options: Mapping[str, Any]) -> Iterator[Concern]:
    routers = [name for name in _ROUTERS if is_on(options, name)]
    if not routers or is_on(options, 'http-websockets') or is_on(options, 'http-raw-body'):
        return
    yield Concern(
        f"uWSGI's router (--{routers[0]}) passes on nothing that clients send after the handshake",
        'Add --http-websockets.',
        # Websockets may come by another socket than the router's.
        is_fatal=not any(is_on(options, name) for name in _SOCKETS),
    )


def _https_socket(options: Mapping[str, Any]) -> Iterator[Concern]:
    if is_on(options, 'https-socket'):
        yield Concern(
            'uWSGI cannot hand over a socket of --https-socket, whose TLS lives in the request',
            'Use --https with --http-websockets, or a proxy such as NGINX, instead.',
            is_fatal=not any(is_on(options, name) for name in (*_ROUTERS, *_SOCKETS)),
        )


def _recycling(options: Mapping[str, Any]) -> Iterator[Concern]:
    for name in options:
        when = _RECYCLING.get(name)
        if when is None and name.startswith(_RECYCLING_PREFIXES):
            when = 'whenever that holds'
        if when is not None and is_on(options, name):
            yield Concern(
                f'--{name} ends a worker {when}, and all its websockets with it',
                f'Remove {name} where the websocket loop runs.',
            )


def _monkey_patching(options: Mapping[str, Any]) -> Iterator[Concern]:
    if is_on(options, 'gevent-monkey-patch') and not is_on(options, 'gevent-early-monkey-patch'):
        yield Concern(
            '--gevent-monkey-patch comes after the project is loaded: views that use a database '
            'fail with "DatabaseWrapper objects created in a thread can only be used in that same '
            'thread"',
            'Use --gevent-early-monkey-patch, or neither: ws4redis needs none.',
        )

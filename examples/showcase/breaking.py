"""Break something on purpose, to see that nothing is lost.

Each of these needs DEBUG. A process is killed only where `demo.py` starts it again, and of all the
Redis servers in the world only the one that `demo.py` has started is touched.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.conf import settings

from ws4redis.broker.connections import get_client
from ws4redis.control import disconnect

if TYPE_CHECKING:
    from django.http import HttpRequest

# Long enough for the answer to leave first.
KILL_AFTER_SECONDS = 0.3
# Below 4500 clients come back.
CUT_CODE = 4000


def cut(request: HttpRequest) -> None:
    """End the websockets of whoever asks."""
    disconnect(session=request.session, code=CUT_CODE, reason='cut on purpose')


def kill(request: HttpRequest) -> None:
    """Kill this process, which serves both views and websockets, without a word to its clients."""
    threading.Timer(KILL_AFTER_SECONDS, os.kill, [os.getpid(), signal.SIGKILL]).start()


def restart(request: HttpRequest) -> None:
    """Stop Redis; `demo.py` starts it again after a while, with the data that it had."""
    get_client().shutdown(nosave=True)


def forget(request: HttpRequest) -> None:
    """Empty Redis: now something is lost, and everybody is told."""
    get_client().flushall()


WAYS: dict[str, Callable[[HttpRequest], None]] = {
    'cut': cut,
    'kill': kill,
    'restart': restart,
    'forget': forget,
}


def why_not(way: str) -> str:
    """Return why something may not be broken here, empty if it may."""
    if not settings.DEBUG:
        return 'Only with DEBUG.'
    if way == 'kill' and not settings.DEMO_RESTARTS_SERVER:
        return 'Only under “make demo” or “make runserver”, which start it again.'
    if way in {'restart', 'forget'} and not settings.DEMO_OWNS_REDIS:
        return 'This Redis is not the demo’s own. Start the demo with “make demo OWN_REDIS=1”.'
    return ''

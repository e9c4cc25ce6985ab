"""The end of a process: every websocket gets what is queued for it, and a close frame.

uWSGI calls ``uwsgi.atexit`` when a worker ends. It neither says why, nor leaves much to work with:

- Under ``--gevent`` gevent's loop no longer runs then, so the loop is turned by hand. What uWSGI
  was told is learnt from watchers of our own beside its own watchers of the same signals. They also
  begin to close websockets at once, while uWSGI still waits for the requests that are under way.
- With threads uWSGI runs the hook out of its signal handler, and while that runs the kernel keeps
  the very signal blocked: the set of blocked signals names it.

The master sends its workers SIGINT when uWSGI stops, SIGHUP or SIGTERM when it reloads; without any
signal a worker ends to be replaced (``--max-requests``, say).
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from ws4redis.conf import conf
from ws4redis.hub.hub import Hub
from ws4redis.loop.drivers import runs_under_gevent
from ws4redis.protocol.frames import CloseCode

logger = logging.getLogger('ws4redis')

STOPS = CloseCode.GOING_AWAY, 'the server stops'
RESTARTS = CloseCode.SERVICE_RESTART, 'the server restarts'

# uWSGI's own default of `worker-reload-mercy`, after which it kills a worker.
MERCY_SECONDS = 60.0
# Closing is spread over time for the sake of many clients; under runserver there is one developer.
DEVELOPMENT_CLOSE_SECONDS = 1.0
# For what the loop still has to do when its websockets have gone.
MARGIN_SECONDS = 1.0


def close_hub_at_exit(hub: Hub) -> None:
    """Close the websockets of this process in good order when it ends.

    Called once for each :class:`Hub`, in the process that serves them.
    """
    uwsgi: Any = sys.modules.get('uwsgi')
    if uwsgi is None:
        _end_with_python(hub)
    else:
        _end_with_uwsgi(hub, uwsgi)


def _finish(
    hub: Hub,
    farewell: tuple[CloseCode, str],
    *,
    spread_seconds: float,
    close_timeout_seconds: float,
) -> None:
    """Close all websockets, and return when that is done. Called outside the loop."""
    loop = hub.loop
    if not loop.running:
        return
    _begin(hub, farewell, spread_seconds, close_timeout_seconds)
    if not loop.driver.finish(spread_seconds + close_timeout_seconds + MARGIN_SECONDS):
        logger.error('%d websockets were not closed in time', hub.open_count)


def _begin(
    hub: Hub,
    farewell: tuple[CloseCode, str],
    spread_seconds: float,
    close_timeout_seconds: float,
) -> None:
    def drain() -> None:
        hub.drain(
            *farewell, spread_seconds=spread_seconds, close_timeout_seconds=close_timeout_seconds
        )

    hub.loop.call_soon(drain)


# uWSGI


def _end_with_uwsgi(hub: Hub, uwsgi: Any) -> None:
    signals: set[int] = set()
    spread = min(conf.WS4REDIS_DRAIN_SECONDS, mercy_seconds(uwsgi.opt) / 3)
    timeout = min(conf.WS4REDIS_CLOSE_TIMEOUT, mercy_seconds(uwsgi.opt) / 3)

    def noted(number: int) -> None:
        signals.add(number)
        _begin(hub, farewell_of_uwsgi(uwsgi, signals), spread, timeout)

    def end() -> None:
        # Only in the handler of a signal is that signal blocked.
        signals.update(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        _finish(
            hub,
            farewell_of_uwsgi(uwsgi, signals),
            spread_seconds=spread,
            close_timeout_seconds=timeout,
        )

    if runs_under_gevent():
        _watch_signals(noted)
    uwsgi.atexit = _after(getattr(uwsgi, 'atexit', None), end)


def _watch_signals(noted: Callable[[int], object]) -> None:
    import gevent

    gevent_loop = gevent.get_hub().loop
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        # `ref=False`: uWSGI may wait until gevent has nothing more to do.
        watcher = gevent_loop.signal(number, ref=False)
        watcher.start(noted, number)
        _watchers.append(watcher)


# A watcher without a reference is closed.
_watchers: list[Any] = []


def _after(earlier: Callable[[], object] | None, hook: Callable[[], None]) -> Callable[[], None]:
    """Return what calls ``hook``, and what was to be called without it."""

    def run() -> None:
        try:
            hook()
        finally:
            if earlier is not None:
                earlier()

    return run


def farewell_of_uwsgi(uwsgi: Any, signals: set[int]) -> tuple[CloseCode, str]:
    """Return how websockets are closed when a worker of uWSGI got these signals."""
    stops = {signal.SIGINT} if uwsgi.masterpid() else {signal.SIGINT, signal.SIGTERM}
    return STOPS if signals & stops else RESTARTS


def mercy_seconds(options: Any) -> float:
    """Return after how many seconds uWSGI kills a worker that has not ended."""
    value = options.get('worker-reload-mercy', options.get('reload-mercy', MERCY_SECONDS))
    try:
        return float(value)
    except (TypeError, ValueError):
        return MERCY_SECONDS


# runserver


def _end_with_python(hub: Hub) -> None:
    _note_changed_files()

    def end() -> None:
        _finish(
            hub,
            RESTARTS if _changed_files else STOPS,
            spread_seconds=0,
            close_timeout_seconds=min(conf.WS4REDIS_CLOSE_TIMEOUT, DEVELOPMENT_CLOSE_SECONDS),
        )

    atexit.register(end)
    # When these websockets have gone earlier, they are not kept any longer.
    hub.loop.at_close(lambda: atexit.unregister(end))


# The files whose change makes runserver end, so that it is a restart.
_changed_files: list[object] = []


def _note_changed_files() -> None:
    autoreload = sys.modules.get('django.utils.autoreload')
    if autoreload is not None:
        autoreload.file_changed.connect(_note_file, dispatch_uid='ws4redis.shutdown')


def _note_file(file_path: object = None, **kwargs: object) -> None:
    _changed_files.append(file_path)

"""A process that serves: the native door, and the loop that it is part of.

The supervisor starts it and hands it the socket to listen on. Signals end it in good order: SIGTERM
closes its websockets with 1001, SIGHUP with 1012, since then another process has taken its place.
It ends in the same way when the supervisor has gone, which it learns from the end of a pipe.
"""

from __future__ import annotations

import _socket
import gc
import logging
import os
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from ws4redis.applications.wsgi import WebSocketServer, count_refusal
from ws4redis.conf import conf
from ws4redis.handlers.server import HandlerServer
from ws4redis.hub.hub import Hub
from ws4redis.loop.drivers import GeventDriver, ThreadDriver
from ws4redis.protocol.frames import CloseCode
from ws4redis.servers.native.door import Door
from ws4redis.servers.native.trust import TrustedProxies
from ws4redis.servers.process import get_hub, use_driver
from ws4redis.standalone.application import NativeApplication, body_limit, response_to

logger = logging.getLogger('ws4redis')

# Beyond the time for closing websockets: for handlers, for Redis, as a margin.
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Ending:
    """How the websockets of a process are closed when it ends."""

    code: CloseCode
    reason: str


ENDING_OF_SIGNAL: dict[int, Ending] = {
    signal.SIGTERM: Ending(CloseCode.GOING_AWAY, 'the server stops'),
    signal.SIGHUP: Ending(CloseCode.SERVICE_RESTART, 'the server restarts'),
}


def stop_seconds() -> float:
    """Return how long a worker takes to stop, at most."""
    return conf.WS4REDIS_DRAIN_SECONDS + 2 * conf.WS4REDIS_CLOSE_TIMEOUT + GRACE_SECONDS


class Worker:
    """Serve websockets on a listening socket until told to stop.

    With ``greenlets`` the loop, views and handlers run in greenlets of a monkey-patched process,
    else the loop has a native thread.
    """

    def __init__(
        self,
        listener: int,
        handlers: HandlerServer,
        *,
        tls: ssl.SSLContext | None = None,
        takes_proxy_protocol: bool = False,
        log_requests: bool = False,
        greenlets: bool = False,
    ) -> None:
        self._listener = listener
        self._handlers = handlers
        self._tls = tls
        self._takes_proxy_protocol = takes_proxy_protocol
        self._log_requests = log_requests
        self._greenlets = greenlets

    def run(self, *, lifeline: int, ready: int) -> None:
        """Serve; return when all is closed.

        ``lifeline`` is a descriptor that becomes readable at the end of the supervisor, ``ready``
        one that is told when this worker serves.
        """
        use_driver(GeventDriver if self._greenlets else ThreadDriver)
        # The loop and its connections to Redis are made now rather than for the first websocket.
        hub = get_hub()
        if self._handlers.routes:
            self._handlers.prepare(hub)
        told_to_end = hub.loop.driver.event()
        door = self._door(hub)
        ends = Ends(hub, lifeline, door.stop_accepting, told_to_end.set)
        ends.start()

        def start() -> None:
            door.start()
            os.write(ready, b'\0')
            os.close(ready)

        # What is loaded by now stays; the garbage collector need not visit it again and again.
        gc.freeze()
        hub.loop.call_soon(start)
        told_to_end.wait()
        if not hub.loop.driver.wait_stopped(stop_seconds()):
            logger.error('%d websockets were not closed in time', hub.open_count)

    def _door(self, hub: Hub) -> Door:
        return Door(
            hub.loop,
            _socket.socket(fileno=self._listener),
            NativeApplication(WebSocketServer(handlers=self._handlers), views=self._greenlets),
            response_to=response_to,
            body_limit=body_limit,
            refused=count_refusal,
            trusted=TrustedProxies(conf.WS4REDIS_TRUSTED_PROXIES),
            tls=self._tls,
            takes_proxy_protocol=self._takes_proxy_protocol,
            timeout_seconds=conf.WS4REDIS_HANDSHAKE_TIMEOUT,
            logs_requests=self._log_requests,
        )


class Ends:
    """Learn that this process is to end, in the loop, and close its websockets then.

    Signals arrive as bytes in a pipe, whatever the main thread is doing.
    """

    def __init__(
        self,
        hub: Hub,
        lifeline: int,
        stop_accepting: Callable[[], object],
        told: Callable[[], object],
    ) -> None:
        self._hub = hub
        self._lifeline = lifeline
        self._stop_accepting = stop_accepting
        self._told = told
        self._signals, self._writer = os.pipe()
        self._has_begun = False

    def start(self) -> None:
        """Watch signals and the lifeline. Called in the main thread."""
        for fd in (self._signals, self._writer):
            os.set_blocking(fd, False)
        # Ctrl-C in a terminal reaches this process too, but the supervisor tells it what to do.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in ENDING_OF_SIGNAL:
            signal.signal(number, _ignore)
        signal.set_wakeup_fd(self._writer)
        # Should the loop end by itself, nothing is served any more.
        self._hub.loop.at_close(self._told)
        self._hub.loop.call_soon(self._hub.loop.register, self._signals, _Watch(self._signalled))
        self._hub.loop.call_soon(self._hub.loop.register, self._lifeline, _Watch(self._orphaned))

    def _signalled(self) -> None:
        for number in os.read(self._signals, 512):
            if number in ENDING_OF_SIGNAL:
                self._begin(ENDING_OF_SIGNAL[number])

    def _orphaned(self) -> None:
        self._hub.loop.unregister(self._lifeline)
        logger.error('the supervisor has gone')
        self._begin(ENDING_OF_SIGNAL[signal.SIGTERM])

    def _begin(self, ending: Ending) -> None:
        # A stop overrules a restart that is under way, but does not make it start over.
        if self._has_begun:
            return
        self._has_begun = True
        # 1. No new connections; those that wait in the socket's queue are for other processes.
        self._stop_accepting()
        # 2. Every websocket gets what is queued for it and a close frame; then the loop ends, and
        #    with it, once the handlers have finished, its threads.
        drain(self._hub, ending)
        self._told()


class _Watch:
    def __init__(self, react: Callable[[], object]) -> None:
        self._react = react

    def ready(self, events: int) -> None:
        self._react()


def drain(hub: Hub, ending: Ending) -> None:
    """Close all websockets. Called in the loop."""
    hub.drain(ending.code, ending.reason, spread_seconds=conf.WS4REDIS_DRAIN_SECONDS)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Let the wake-up descriptor tell."""

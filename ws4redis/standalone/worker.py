"""A process that serves: pywsgi for handshakes, and the loop, both in one thread under gevent.

The supervisor starts it and hands it the socket to listen on. Signals end it in good order: SIGTERM
closes its websockets with 1001, SIGHUP with 1012, since then another process has taken its place.
It ends in the same way when the supervisor has gone, which it learns from the end of a pipe.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.socket import wait_read

from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.conf import conf
from ws4redis.handlers.server import HandlerServer
from ws4redis.loop.drivers import GeventDriver
from ws4redis.protocol.frames import CloseCode
from ws4redis.servers.process import existing_hub, get_hub, use_driver
from ws4redis.standalone.application import ViewServer
from ws4redis.standalone.http_handler import HandshakeServer

logger = logging.getLogger('ws4redis')

# Beyond the time for closing websockets: for handlers, for Redis, as a margin.
GRACE_SECONDS = 5.0
# How many connections may be at their handshake at once.
MAX_HANDSHAKES = 2048


@dataclass(frozen=True)
class Ending:
    """How the websockets of a process are closed when it ends."""

    code: CloseCode
    reason: str


ENDING_OF_SIGNAL = {
    signal.SIGTERM: Ending(CloseCode.GOING_AWAY, 'the server stops'),
    signal.SIGHUP: Ending(CloseCode.SERVICE_RESTART, 'the server restarts'),
}


def stop_seconds() -> float:
    """Return how long a worker takes to stop, at most."""
    return conf.WS4REDIS_DRAIN_SECONDS + 2 * conf.WS4REDIS_CLOSE_TIMEOUT + GRACE_SECONDS


class Worker:
    """Serve websockets on a listening socket until told to stop."""

    def __init__(
        self,
        listener: socket.socket,
        handlers: HandlerServer,
        *,
        tls: ssl.SSLContext | None = None,
        log_requests: bool = False,
        views: bool = False,
    ) -> None:
        self._handlers = handlers
        websockets = WebSocketServer(handlers=handlers)
        self._handshakes = Pool(MAX_HANDSHAKES)
        self._application = (
            ViewServer(websockets, view_begins=self._leave_handshakes) if views else websockets
        )
        self._ending: Ending | None = None
        self._told_to_end = Event()
        self._server = HandshakeServer(
            listener,
            self._application,
            tls=tls,
            spawn=self._handshakes,
            log=logging.getLogger('ws4redis.requests') if log_requests else None,
            error_log=logger,
            # Others accept on the same socket: let none take many connections at once.
            environ={'wsgi.multiprocess': True, 'wsgi.multithread': True},
        )

    def run(self, *, lifeline: int, ready: int) -> None:
        """Serve; return when all is closed.

        ``lifeline`` is a descriptor that becomes readable at the end of the supervisor, ``ready``
        one that is told when this worker serves.
        """
        use_driver(GeventDriver)
        # The loop and its connections to Redis are made now rather than for the first websocket.
        hub = get_hub()
        if self._handlers.routes:
            self._handlers.prepare(hub)
        # Ctrl-C in a terminal reaches this process too, but the supervisor tells it what to do.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number, ending in ENDING_OF_SIGNAL.items():
            gevent.signal_handler(number, self._end, ending)
        watcher = gevent.spawn(self._watch_lifeline, lifeline)
        self._server.start()
        os.write(ready, b'\0')
        os.close(ready)
        try:
            self._told_to_end.wait()
            self._close(self._ending or ENDING_OF_SIGNAL[signal.SIGTERM])
        finally:
            watcher.kill()

    def _leave_handshakes(self) -> None:
        # Otherwise that many open views would keep all other clients waiting.
        self._handshakes.discard(gevent.getcurrent())

    def _end(self, ending: Ending) -> None:
        # A stop overrules a restart that is under way, but does not make it start over.
        if self._ending is None:
            self._ending = ending
            self._told_to_end.set()

    def _watch_lifeline(self, lifeline: int) -> None:
        wait_read(lifeline)
        logger.error('the supervisor has gone')
        self._end(ENDING_OF_SIGNAL[signal.SIGTERM])

    def _close(self, ending: Ending) -> None:
        # 1. No new connections; those that wait in the socket's queue are for other processes.
        self._server.close()
        hub = existing_hub()
        if hub is None:
            return
        # 2. Every websocket gets what is queued for it and a close frame; then the loop ends, and
        #    with it, once the handlers have finished, its thread pool.
        hub.loop.call_soon(lambda: drain(hub, ending))
        if not hub.loop.driver.wait_stopped(stop_seconds()):
            logger.error('%d websockets were not closed in time', hub.open_count)


def drain(hub: Any, ending: Ending) -> None:
    """Close all websockets. Called in the loop."""
    hub.drain(ending.code, ending.reason, spread_seconds=conf.WS4REDIS_DRAIN_SECONDS)

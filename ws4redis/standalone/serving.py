"""Put together what one process of the standalone server consists of."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from ws4redis.handlers.backends import gevent_backend, threaded_backend
from ws4redis.handlers.multiprocess.backend import RemoteBackend
from ws4redis.handlers.multiprocess.names import KeyNames
from ws4redis.handlers.multiprocess.worker import HandlerWorker
from ws4redis.handlers.routes import routes_from_settings
from ws4redis.handlers.server import HandlerServer, MakeBackend
from ws4redis.servers.native.tls import make_context
from ws4redis.settings.checks import validate_settings
from ws4redis.standalone.options import GEVENT, MULTIPROCESS, ProcessOptions
from ws4redis.standalone.worker import Worker

logger = logging.getLogger('ws4redis')


def run_process(options: ProcessOptions) -> None:
    """Become what the options say, until told to end."""
    if options.role == 'handlers':
        run_handlers(options)
    elif options.role == 'metrics':
        run_metrics(options)
    else:
        serve(options)


def serve(options: ProcessOptions) -> None:
    """Serve websockets, until told to end."""
    validate_settings()
    routes = routes_from_settings(options.websocket_url)
    worker = Worker(
        options.listener,
        HandlerServer(routes, make_backend=backend_maker(options)),
        tls=make_context(options.certfile, options.keyfile) if options.certfile else None,
        takes_proxy_protocol=options.proxy_protocol,
        log_requests=options.log_requests,
        greenlets=options.mode == GEVENT,
    )
    worker.run(lifeline=options.lifeline, ready=options.ready)


def run_metrics(options: ProcessOptions) -> None:
    """Show the metrics of all processes, until told to end."""
    from ws4redis.dashboard.metrics_server import MetricsServer

    validate_settings()
    server = MetricsServer(socket.socket(fileno=options.listener))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: server.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(options.lifeline, server), daemon=True).start()
    _tell_supervisor(options.ready)
    server.run()


def backend_maker(options: ProcessOptions) -> MakeBackend:
    """Return what makes the backend of a mode."""
    if options.mode == GEVENT:
        return gevent_backend
    if options.mode == MULTIPROCESS:
        names = KeyNames(options.push_socket, options.sub_socket)
        return lambda hub: RemoteBackend(hub, names)
    return threaded_backend


def run_handlers(options: ProcessOptions, *, announce: Callable[[], object] | None = None) -> None:
    """Run handlers for websocket servers, until told to end.

    ``announce`` is called when servers can find this process; without it, the supervisor is told.
    """
    validate_settings()
    routes = routes_from_settings(options.websocket_url)
    worker = HandlerWorker(KeyNames(options.push_socket, options.sub_socket), routes)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: worker.stop())
    if options.lifeline >= 0:
        # Ctrl-C in a terminal reaches this process too, but the supervisor tells it what to do.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_watch, args=(options.lifeline, worker), daemon=True).start()
    worker.run(announce=announce or (lambda: _tell_supervisor(options.ready)))


def _tell_supervisor(ready: int) -> None:
    os.write(ready, b'\0')
    os.close(ready)


class _Stoppable(Protocol):
    def stop(self) -> None: ...


def _watch(lifeline: int, worker: _Stoppable) -> None:
    """Stop the worker when the supervisor has gone."""
    os.read(lifeline, 1)
    logger.error('the supervisor has gone')
    worker.stop()

"""Backends: how a handshake reaches a handler of this process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from ws4redis.conf import conf
from ws4redis.handlers.mailbox import Dispatcher, Mailbox
from ws4redis.handlers.requests import make_lasting_request
from ws4redis.handlers.runners import GreenletRunner, Runner, ThreadRunner
from ws4redis.handlers.session import HandlerSession
from ws4redis.handshake.identity import identity_to_keep
from ws4redis.handshake.machine import Steps
from ws4redis.handshake.policy import authorise, refusing_errors, user_to_count
from ws4redis.loop.blocking_call import Pool
from ws4redis.protocol.frames import CloseCode

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ws4redis.handlers.routes import Match
    from ws4redis.hub.hub import Hub
    from ws4redis.servers.opening import Opening

logger = logging.getLogger('ws4redis')


class Backend(Protocol):
    """Where handlers run."""

    def open(self, opening: Opening, environ: WSGIEnvironment, match: Match) -> Steps[None]:
        """Let a handler take the websocket of an opening, and complete it.

        Raise ``HandshakeError`` if it does not; the caller then abandons the opening.
        """


class LocalBackend:
    """Run handlers in this process."""

    def __init__(self, hub: Hub, runner: Runner) -> None:
        self._dispatcher = Dispatcher(hub, runner)

    def open(self, opening: Opening, environ: WSGIEnvironment, match: Match) -> Steps[None]:
        yield from opening.run(
            self._accept, opening, environ, match, too_late=_end, pool=Pool.HANDLERS
        )
        opening.check_still_due()
        opening.complete()

    def _accept(self, opening: Opening, environ: WSGIEnvironment, match: Match) -> HandlerSession:
        """Apply the policy, then ask the handler. May block."""
        request = make_lasting_request(environ)
        authorise(request)
        user = user_to_count(request)
        if user is not None:
            opening.count_user(user)
        mailbox = Mailbox(self._dispatcher)
        mailbox.websocket = opening.make_websocket(mailbox)
        session = HandlerSession(match.handler_class, request, match.kwargs, mailbox)
        # Its end may come meanwhile, and takes it out.
        mailbox.session = session
        with refusing_errors(request):
            session.connect()
        opening.identify(identity_to_keep(request))
        return session


def _end(session: HandlerSession) -> None:
    """Tell a handler that its websocket, which it has taken too late, never opens."""
    try:
        session.end(CloseCode.ABNORMAL_CLOSURE)
    except Exception:
        logger.exception('on_close() of %r failed', session.handler)


def threaded_backend(hub: Hub) -> Backend:
    """Run handlers in a bounded pool of native threads."""
    return LocalBackend(hub, ThreadRunner(conf.WS4REDIS_WORKER_THREADS))


def gevent_backend(hub: Hub) -> Backend:
    """Run handlers in greenlets of the loop's thread; the process must be monkey patched."""
    return LocalBackend(hub, GreenletRunner())

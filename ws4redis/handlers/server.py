"""The handshakes of handlers: from a path to a backend."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from django.core.handlers.wsgi import get_path_info

from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.handlers.backends import Backend, threaded_backend
from ws4redis.handlers.routes import HandlerRoutes, Match, UnknownNamespace, routes_from_settings
from ws4redis.handshake.machine import Steps
from ws4redis.hub.hub import Hub
from ws4redis.loop.native import original
from ws4redis.servers.opening import Opening

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger('ws4redis')

MakeBackend: TypeAlias = Callable[[Hub], Backend]


class HandlerServer:
    """Answer the handshakes of handlers.

    Without ``routes`` they are those of the settings.
    """

    def __init__(
        self,
        routes: HandlerRoutes | None = None,
        *,
        make_backend: MakeBackend = threaded_backend,
    ) -> None:
        self._routes = routes
        self._make_backend = make_backend
        self._backend: tuple[Hub, Backend] | None = None
        self._lock = original('_thread', 'allocate_lock')()

    @property
    def routes(self) -> HandlerRoutes:
        """The routes; raise ``ImproperlyConfigured`` if a setting leads to no handler."""
        return routes_from_settings() if self._routes is None else self._routes

    def serves(self, path: str) -> bool:
        """Tell whether a path belongs to a handler."""
        return self.routes.serves(path)

    def steps(self, environ: WSGIEnvironment, start_response: StartResponse | None) -> Steps[None]:
        """Open a websocket whose path is served; raise ``HandshakeError`` if it is refused."""
        match = self._match(environ)
        opening = Opening(environ, start_response)
        try:
            yield from self._backend_of(opening.hub).open(opening, environ, match)
        except BaseException:
            opening.abandon()
            raise

    def prepare(self, hub: Hub) -> None:
        """Make what handlers need now rather than at the first handshake."""
        self._backend_of(hub)

    def _match(self, environ: WSGIEnvironment) -> Match:
        path = get_path_info(environ)
        try:
            match = self.routes.match(path)
            if match is not None:
                return match
            if 'HTTP_UPGRADE' in environ:
                logger.warning(
                    'handshake refused: no handler has the path %r, and WEBSOCKET_URL is %r. '
                    'A proxy must not take the prefix away',
                    path,
                    conf.WEBSOCKET_URL,
                )
        except UnknownNamespace as exc:
            logger.warning('handshake refused: %r has the unknown namespace %r', path, str(exc))
        raise HandshakeError(404, 'There is no websocket at this address.')

    def _backend_of(self, hub: Hub) -> Backend:
        # Made at the first handshake, like the loop: before, the process may yet fork.
        if self._backend is None or self._backend[0] is not hub:
            with self._lock:
                if self._backend is None or self._backend[0] is not hub:
                    self._backend = (hub, self._make_backend(hub))
        return self._backend[1]

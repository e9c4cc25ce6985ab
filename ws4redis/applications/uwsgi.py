"""The websocket loop under uWSGI."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

from ws4redis.applications.wsgi import CombinedServer, WebSocketServer
from ws4redis.conf import conf
from ws4redis.servers.uwsgi_options import concerns_about, fatal_concern
from ws4redis.settings.checks import validate_settings

if TYPE_CHECKING:
    import redis
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger('ws4redis')


class uWSGIWebSocketServer(WebSocketServer):  # noqa: N801 (the name that users know)
    """The WSGI application of the websocket loop, to be run by uWSGI.

    Run uWSGI with ``--gevent N`` or ``--threads N``: N bounds how many handshakes are answered at
    once, not how many websockets there are. Raise ``ImproperlyConfigured`` when a setting is wrong,
    or with uWSGI's options no websocket can work.
    """

    takes_any_path = True

    def __init__(self, redis_connection: redis.Redis | None = None) -> None:
        super().__init__(redis_connection)
        if not apps.ready:
            django.setup()
        validate_settings()
        # Report a wrong setting of handlers now, not at the first websocket.
        self.handlers.routes  # noqa: B018
        uwsgi: Any = sys.modules.get('uwsgi')
        if uwsgi is not None:
            _check_options(uwsgi.opt)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return super().__call__(environ, start_response)


class uWSGIBothLoops(CombinedServer):  # noqa: N801 (as the other one)
    """The WSGI application of both loops in one uWSGI.

    Websockets, under ``WEBSOCKET_URL`` or a handler's, go to the websocket loop, everything else to
    ``django``, by default Django's own application. Raise as :class:`uWSGIWebSocketServer` does.
    """

    def __init__(self, django: WSGIApplication | None = None) -> None:
        websockets = uWSGIWebSocketServer()
        if conf.WEBSOCKET_URL == '/':
            raise ImproperlyConfigured(
                "WEBSOCKET_URL is '/', which leaves no path for Django. Give websockets a prefix, "
                "such as '/ws/', or serve them by uWSGIWebSocketServer alone."
            )
        super().__init__(
            get_wsgi_application() if django is None else django, websockets=websockets
        )


# The spelling of earlier versions.
uWSGIWebsocketServer = uWSGIWebSocketServer  # noqa: N816


def _check_options(options: Mapping[str, Any]) -> None:
    fatal = fatal_concern(options)
    if fatal is not None:
        raise ImproperlyConfigured(str(fatal))
    for concern in concerns_about(options):
        logger.warning('uWSGI: %s', concern)

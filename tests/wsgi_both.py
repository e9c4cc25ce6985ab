"""Both loops in one uWSGI, as `examples/chatserver/wsgi.py` shows it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from ws4redis.uwsgi_runserver import uWSGIWebSocketServer

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
_django = get_wsgi_application()
_websockets = uWSGIWebSocketServer()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Give websockets to the websocket loop, anything else to Django."""
    if environ['PATH_INFO'].startswith(getattr(settings, 'WEBSOCKET_URL', '/ws/')):
        return _websockets(environ, start_response)
    answer: Iterable[bytes] = _django(environ, start_response)
    return answer

"""Both loops in one uWSGI: websockets by ws4redis, everything else by Django.

uwsgi --http :8000 --gevent 100 --http-websockets --module wsgi
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'chatserver.settings')

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from ws4redis.uwsgi_runserver import uWSGIWebSocketServer

django_application = get_wsgi_application()
websocket_application = uWSGIWebSocketServer()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request."""
    if environ.get('PATH_INFO', '').startswith(settings.WEBSOCKET_URL):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)

"""A Django project that echoes in a view: for uWSGI, and for runserver."""

from __future__ import annotations

import os
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.urls import path

from ws4redis.decorators import require_websocket

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'conformance.view_settings')


@require_websocket
def echo(request: Any) -> None:
    """Send each message back."""
    for message in request.websocket:
        request.websocket.send(message)


urlpatterns = [path('echo', echo)]

application = get_wsgi_application()

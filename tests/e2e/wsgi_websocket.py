"""The websocket loop alone in a uWSGI of its own, as `examples/wsgi_websocket.py` shows it."""

from __future__ import annotations

import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

from ws4redis.uwsgi_runserver import uWSGIWebSocketServer

application = uWSGIWebSocketServer()

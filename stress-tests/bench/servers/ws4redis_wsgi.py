"""The ws4redis contender: a websocket loop alone, under uWSGI."""

import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'bench.servers.ws4redis_settings')

from ws4redis.uwsgi_runserver import uWSGIWebSocketServer

application = uWSGIWebSocketServer()

"""The websocket loop alone, for a uWSGI of its own behind NGINX, Apache or uWSGI's router.

uwsgi --http-socket web.socket --gevent 100 --module wsgi_websocket
"""

import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'chatserver.settings')

from ws4redis.uwsgi_runserver import uWSGIWebSocketServer

application = uWSGIWebSocketServer()

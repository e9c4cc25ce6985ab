"""Both loops in one uWSGI: websockets by ws4redis, everything else by Django.

uwsgi --http :8000 --gevent 100 --http-websockets --module wsgi
"""

from __future__ import annotations

import os

from ws4redis.uwsgi_runserver import uWSGIBothLoops

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'chatserver.settings')

application = uWSGIBothLoops()

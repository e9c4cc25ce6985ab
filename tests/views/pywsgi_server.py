"""gevent's pywsgi with a Django project: ``python -m tests.views.pywsgi_server PORT [patched]``."""

from __future__ import annotations

import sys

if 'patched' in sys.argv:
    from gevent import monkey

    monkey.patch_all()

from gevent.pywsgi import WSGIServer

from tests.views.wsgi import application

server = WSGIServer(('127.0.0.1', int(sys.argv[1])), application)
server.start()
print('serving', flush=True)
server.serve_forever()

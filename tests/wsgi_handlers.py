"""Both loops in one uWSGI by the ready application, handlers included."""

from __future__ import annotations

import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

from ws4redis.uwsgi_runserver import uWSGIBothLoops

application = uWSGIBothLoops()

"""A project's own WSGI module, with nothing of ws4redis in it."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

application = get_wsgi_application()

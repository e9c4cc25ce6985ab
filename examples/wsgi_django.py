"""The Django loop alone, for any WSGI server; websockets are another process's business."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'chatserver.settings')

application = get_wsgi_application()

"""Both loops inside ``manage.py runserver``.

``WSGI_APPLICATION = 'ws4redis.django_runserver.application'`` makes Django's development server
serve websockets too: :data:`application` gives websockets to the websocket loop, and everything
else to Django.
"""

from __future__ import annotations

from ws4redis.applications.wsgi import CombinedServer


class DevelopmentServer(CombinedServer):
    """A WSGI application with both loops.

    Django is set up at the first request, so that importing this module does nothing.
    """


application = DevelopmentServer()

"""Both loops inside ``manage.py runserver``.

``WSGI_APPLICATION = 'ws4redis.django_runserver.application'`` makes Django's development server
serve websockets too: :data:`application` gives websockets to the websocket loop, and everything
else to Django.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ws4redis.applications.wsgi import CombinedServer
from ws4redis.conf import conf
from ws4redis.handlers.routes import DEFAULT_URL


class DevelopmentServer(CombinedServer):
    """A WSGI application with both loops.

    Django is set up at the first request, so that importing this module does nothing.
    """


def announcement(arguments: Sequence[str]) -> str:
    """Return what is said at the start of ``runserver``, and nothing in any other command.

    ``arguments`` are those of the command line. There is no hook in ``runserver`` that would not
    hide the one of staticfiles, but it imports the application right before it serves.
    """
    if arguments[1:2] != ['runserver']:
        return ''
    places = [conf.WEBSOCKET_URL, *conf.WS4REDIS_HANDLERS]
    if conf.DEFAULT_WS_HANDLERS:
        places.append(DEFAULT_URL)
    return f'Websockets are on (ws4redis): {", ".join(places)}\n'


application = DevelopmentServer()
if said := announcement(sys.argv):
    sys.stdout.write(said)
    sys.stdout.flush()

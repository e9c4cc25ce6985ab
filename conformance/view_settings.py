"""Settings of the echo in a view: an ordinary project, whose WSGI module knows no websockets."""

from __future__ import annotations

from conformance.settings import *  # noqa: F403

ROOT_URLCONF = 'conformance.echo_view'
WSGI_APPLICATION = 'conformance.echo_view.application'
WEBSOCKET_URL = '/ws/'

"""Django's settings of the echo that `run_wsserver` serves."""

from __future__ import annotations

from conformance.settings import *  # noqa: F403

WEBSOCKET_URL = '/ws/'
DEFAULT_WS_HANDLERS = {'default': 'conformance.echo_handler.Echo'}

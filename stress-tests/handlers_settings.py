"""Django's settings, and the handlers, of the server that ``handlers.py`` measures."""

from __future__ import annotations

import os

SECRET_KEY = 'for measurements'
ALLOWED_HOSTS = ['127.0.0.1']
INSTALLED_APPS = ['ws4redis']
USE_TZ = True
WS4REDIS_CONNECTION = {
    'host': '127.0.0.1',
    'port': int(os.environ.get('WS4REDIS_STRESS_REDIS_PORT', '6379')),
}
WS4REDIS_WORKER_THREADS = int(os.environ.get('WS4REDIS_STRESS_THREADS', '16'))
WS4REDIS_DRAIN_SECONDS = 0
# Measured is how fast it can be, not how fast a client may be by default.
WS4REDIS_MAX_MESSAGES_PER_SECOND = WS4REDIS_MAX_BYTES_PER_SECOND = None
WS4REDIS_MAX_PINGS_PER_SECOND = None
DEFAULT_WS_HANDLERS = {
    'default': 'stress_handlers.Echo',
    'echo': 'stress_handlers.Echo',
    'busy': 'stress_handlers.Busy',
    'waiting': 'stress_handlers.Waiting',
    'waiting-beside-busy-loop': 'stress_handlers.WaitingBesideBusyLoop',
}
WS4REDIS_PING_INTERVAL = None

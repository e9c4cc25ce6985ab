"""Settings of the ws4redis contender."""

import os

from bench.servers.django_settings import *  # noqa: F403
from bench.servers.django_settings import INSTALLED_APPS

INSTALLED_APPS += ['ws4redis']
WEBSOCKET_URL = '/ws/'
WS4REDIS_CONNECTION = {'host': '127.0.0.1', 'port': int(os.environ['BENCH_REDIS_PORT'])}
# No contender keeps messages, unless that is what is measured.
WS4REDIS_EXPIRE = 0
if os.environ.get('BENCH_HISTORIES'):
    WS4REDIS_FACILITIES = {'*': {'HISTORY_SIZE': 100}}
if os.environ.get('BENCH_UNSEEN'):
    WS4REDIS_SNAPSHOT_INTERVAL = None
# Measured is how fast it can be, not how fast a client may be by default.
WS4REDIS_MAX_MESSAGES_PER_SECOND = WS4REDIS_MAX_BYTES_PER_SECOND = None
WS4REDIS_MAX_PINGS_PER_SECOND = None
DEFAULT_WS_HANDLERS = dict.fromkeys(('default', 'blocking', 'cooperative'), 'stress_handlers.Echo')

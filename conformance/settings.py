"""Django's settings of the echo servers."""

from __future__ import annotations

import os

SECRET_KEY = 'for the conformance tests alone'
DEBUG = False
ALLOWED_HOSTS = ['127.0.0.1', 'localhost']
USE_TZ = True
ROOT_URLCONF = 'conformance.urls'
WSGI_APPLICATION = 'conformance.echo.application'
INSTALLED_APPS = [
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
    'ws4redis',
]
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}

WEBSOCKET_URL = '/'
WS4REDIS_CONNECTION = {
    'host': os.environ.get('WS4REDIS_TEST_REDIS_HOST', '127.0.0.1'),
    'port': int(os.environ.get('WS4REDIS_TEST_REDIS_PORT', '6379')),
}
# Small messages are compressed too, so that each compression case tests something.
WS4REDIS_COMPRESSION = {'minimum_size': 1}
# The largest message of Autobahn's cases, and several of them waiting for a client.
WS4REDIS_MAX_MESSAGE_SIZE = 16 << 20
WS4REDIS_MAX_QUEUE_BYTES = 64 << 20
# Autobahn's client answers a ping also in the middle of a frame that it sends in pieces, and so
# breaks its own frame.
WS4REDIS_PING_INTERVAL = None
# Measured is how fast it can be, not how fast a client may be by default.
WS4REDIS_MAX_MESSAGES_PER_SECOND = WS4REDIS_MAX_BYTES_PER_SECOND = None
WS4REDIS_MAX_PINGS_PER_SECOND = None

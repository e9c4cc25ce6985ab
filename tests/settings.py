"""Django's settings for the tests, and for the servers that tests start.

A server is told by its environment what differs: ``WS4REDIS_TEST_REDIS_HOST``, ``…_PORT``,
``…_SOCKET`` and ``…_PASSWORD`` (where Redis is), ``WS4REDIS_TEST_DATABASE`` (a file of SQLite) and
``WS4REDIS_TEST_SETTINGS`` (a JSON object with any other settings).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.scratch import scratch_directory
from tests.server_coverage import measure_server

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = 'for the tests alone'
DEBUG = False
ALLOWED_HOSTS = ['localhost', '127.0.0.1', '[::1]', 'testserver']
USE_TZ = True
ROOT_URLCONF = 'tests.urls'
WSGI_APPLICATION = 'ws4redis.django_runserver.application'
STATIC_URL = '/static/'
DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'
PASSWORD_HASHERS = ['django.contrib.auth.hashers.MD5PasswordHasher']

INSTALLED_APPS = [
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
    'django.contrib.messages',
    'django.contrib.staticfiles',
    'ws4redis',
]
MIDDLEWARE = [
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.middleware.common.CommonMiddleware',
    'django.middleware.csrf.CsrfViewMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
    'django.contrib.messages.middleware.MessageMiddleware',
]
TEMPLATES = [
    {
        'BACKEND': 'django.template.backends.django.DjangoTemplates',
        'DIRS': [BASE_DIR / 'tests' / 'templates'],
        'APP_DIRS': True,
        'OPTIONS': {
            'context_processors': [
                'django.template.context_processors.request',
                'django.template.context_processors.static',
                'django.contrib.auth.context_processors.auth',
                'django.contrib.messages.context_processors.messages',
                'ws4redis.context_processors.default',
            ],
        },
    },
]

# The database of a test run is a file, not memory, so that the servers of a test can open it too.
# Each worker of pytest-xdist has its own. Nobody reads it after a crash of the machine, and tests
# that empty it write a lot: it need not wait for the disk.
_database_of_tests = scratch_directory() / 'test.sqlite3' if 'pytest' in sys.modules else None
DATABASES: dict[str, dict[str, Any]] = {
    'default': {
        'ENGINE': 'django.db.backends.sqlite3',
        'NAME': os.environ.get('WS4REDIS_TEST_DATABASE', ':memory:'),
        'OPTIONS': {'timeout': 20, 'init_command': 'PRAGMA synchronous=OFF'},
        'TEST': {'NAME': _database_of_tests},
    }
}

# Where no test server is named, the port is one on which nothing listens: a test that forgets to
# ask for the fixture `redis_server` fails, rather than writing into the developer's own Redis.
WS4REDIS_CONNECTION: dict[str, Any] = {
    'host': os.environ.get('WS4REDIS_TEST_REDIS_HOST', '127.0.0.1'),
    'port': int(os.environ.get('WS4REDIS_TEST_REDIS_PORT', '1')),
}
if 'WS4REDIS_TEST_REDIS_SOCKET' in os.environ:
    WS4REDIS_CONNECTION = {'unix_socket_path': os.environ['WS4REDIS_TEST_REDIS_SOCKET']}
if 'WS4REDIS_TEST_REDIS_PASSWORD' in os.environ:
    WS4REDIS_CONNECTION['password'] = os.environ['WS4REDIS_TEST_REDIS_PASSWORD']

# Many tests look at what is in Redis; those of snapshots switch them on.
WS4REDIS_SNAPSHOT_INTERVAL = None

if 'WS4REDIS_TEST_SERVER' in os.environ:
    measure_server()
    # In a test run pytest captures the log; a server writes its own, which the test can read.
    LOGGING = {
        'version': 1,
        'disable_existing_loggers': False,
        'formatters': {'line': {'format': '%(levelname)s %(name)s %(message)s'}},
        'handlers': {'stderr': {'class': 'logging.StreamHandler', 'formatter': 'line'}},
        'loggers': {
            'django': {'handlers': ['stderr'], 'level': 'INFO', 'propagate': False},
            'ws4redis': {
                'handlers': ['stderr'],
                'level': os.environ.get('WS4REDIS_TEST_LOG_LEVEL', 'INFO'),
            },
        },
    }

globals().update(json.loads(os.environ.get('WS4REDIS_TEST_SETTINGS', '{}')))

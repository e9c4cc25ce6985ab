"""Settings of the example project.

It runs as it is on a developer's machine. What a deployment wants otherwise comes from the
environment:

    WS4REDIS_URL                    where Redis is, as redis://, rediss:// or unix://; or
    WS4REDIS_HOST, WS4REDIS_PORT, WS4REDIS_DB, WS4REDIS_PASSWORD, or
    WS4REDIS_UNIX_SOCKET            path of its Unix socket; or
    WS4REDIS_CLUSTER                comma-separated nodes of a Cluster, as host:port; or
    WS4REDIS_SENTINELS, WS4REDIS_SERVICE_NAME
    WS4REDIS_PREFIX                 prefix of all channels in Redis
    WS4REDIS_EXPIRE                 for how many seconds Redis keeps the last message
    WS4REDIS_HEARTBEAT              the heartbeat string; empty: no heartbeats
    CHATSERVER_DATABASE             path of the SQLite file
    CHATSERVER_SECRET_KEY
    CHATSERVER_DEBUG                1 (default) or 0
    CHATSERVER_ALLOWED_HOSTS        comma-separated
    CHATSERVER_TRUSTED_ORIGINS      comma-separated, as https://chat.example.com
    CHATSERVER_STATIC_ROOT          where collectstatic puts files
    CHATSERVER_BEHIND_TLS_PROXY     1: believe the proxy's X-Forwarded-Proto
    CHATSERVER_RESTARTS_SERVER      1: whoever started this process does so again if it is killed
    CHATSERVER_OWNS_REDIS           1: and likewise its Redis, which serves nobody else
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

EXAMPLES_DIR = Path(__file__).resolve().parent.parent


def from_environment(name: str, *, default: str = '') -> str:
    """Return a variable of the environment."""
    return os.environ.get(name, default)


def list_from_environment(name: str, *, default: str = '') -> list[str]:
    """Return the parts of a comma-separated variable."""
    parts = from_environment(name, default=default).split(',')
    return [part.strip() for part in parts if part.strip()]


def redis_connection() -> dict[str, Any]:
    """Return what the environment says of Redis; without a word, ws4redis' defaults hold."""
    if url := from_environment('WS4REDIS_URL'):
        return {'url': url}
    if nodes := from_environment('WS4REDIS_CLUSTER'):
        return {'cluster': nodes.split(',')}
    if sentinels := from_environment('WS4REDIS_SENTINELS'):
        service_name = from_environment('WS4REDIS_SERVICE_NAME')
        return {'sentinels': sentinels.split(','), 'service_name': service_name}
    names = {
        'WS4REDIS_UNIX_SOCKET': 'unix_socket_path',
        'WS4REDIS_HOST': 'host',
        'WS4REDIS_PORT': 'port',
        'WS4REDIS_DB': 'db',
        'WS4REDIS_PASSWORD': 'password',
    }
    given = {key: value for name, key in names.items() if (value := from_environment(name))}
    return {key: int(value) if key in {'port', 'db'} else value for key, value in given.items()}


DEBUG = from_environment('CHATSERVER_DEBUG', default='1') == '1'
SECRET_KEY = from_environment('CHATSERVER_SECRET_KEY', default='not secret: this is an example')
ALLOWED_HOSTS = list_from_environment(
    'CHATSERVER_ALLOWED_HOSTS', default='localhost, 127.0.0.1, [::1]'
)
CSRF_TRUSTED_ORIGINS = list_from_environment('CHATSERVER_TRUSTED_ORIGINS')
if from_environment('CHATSERVER_BEHIND_TLS_PROXY') == '1':
    SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https')
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

ROOT_URLCONF = 'chatserver.urls'

INSTALLED_APPS = [
    'django.contrib.admin',
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
    'django.contrib.messages',
    'django.contrib.staticfiles',
    'ws4redis',
    'chatserver',
    'livepages',
    'dialogues',
    'showcase',
]

MIDDLEWARE = [
    'django.middleware.security.SecurityMiddleware',
    'chatserver.content_security.ContentSecurityPolicyMiddleware',
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.middleware.common.CommonMiddleware',
    'django.middleware.csrf.CsrfViewMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
    'django.contrib.messages.middleware.MessageMiddleware',
    'django.middleware.clickjacking.XFrameOptionsMiddleware',
]

TEMPLATES = [
    {
        'BACKEND': 'django.template.backends.django.DjangoTemplates',
        # Before those of the admin, which has templates in registration/ too.
        'DIRS': [EXAMPLES_DIR / 'chatserver' / 'templates'],
        'APP_DIRS': True,
        'OPTIONS': {
            'context_processors': [
                'django.template.context_processors.request',
                'django.contrib.auth.context_processors.auth',
                'django.contrib.messages.context_processors.messages',
                'ws4redis.context_processors.default',
            ],
        },
    },
]

DATABASES = {
    'default': {
        'ENGINE': 'django.db.backends.sqlite3',
        'NAME': from_environment(
            'CHATSERVER_DATABASE', default=str(EXAMPLES_DIR / 'chatserver.sqlite3')
        ),
    },
}
DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'

LOGIN_URL = 'login'
LOGIN_REDIRECT_URL = 'index'
LOGOUT_REDIRECT_URL = 'index'

USE_TZ = True
TIME_ZONE = 'UTC'

STATIC_URL = '/static/'
STATIC_ROOT = from_environment('CHATSERVER_STATIC_ROOT', default=str(EXAMPLES_DIR / 'static_root'))

LOGGING = {
    'version': 1,
    'disable_existing_loggers': False,
    'handlers': {'console': {'class': 'logging.StreamHandler'}},
    'loggers': {'ws4redis': {'handlers': ['console'], 'level': 'INFO'}},
}

# ws4redis

# runserver gets its websockets by this; other servers do not look at it.
WSGI_APPLICATION = 'ws4redis.django_runserver.application'

WEBSOCKET_URL = '/ws/'
WS4REDIS_CONNECTION = redis_connection()
WS4REDIS_PREFIX = from_environment('WS4REDIS_PREFIX')
WS4REDIS_EXPIRE = int(from_environment('WS4REDIS_EXPIRE', default='3600'))
WS4REDIS_HEARTBEAT = from_environment('WS4REDIS_HEARTBEAT', default='--heartbeat--') or None
WS4REDIS_ALLOWED_CHANNELS = 'chatserver.channels.allowed_channels'

# Who may publish by websocket: WS4REDIS_ALLOWED_CHANNELS has the last word.
ANYONE, NOBODY = {'PUBLISH': 'anyone'}, {'PUBLISH': 'nobody'}
DAY = 24 * 3600
WS4REDIS_FACILITIES = {
    'room/*': {'HISTORY_SIZE': 200, 'HISTORY_SECONDS': DAY, **ANYONE},
    # Who has the page of a room open, and types. A room itself is listened to from other pages too.
    'here/*': {'KEEP': 0, 'PRESENCE': True, **ANYONE},
    'ticker': {'HISTORY_SIZE': 1000, 'KEEP': 0, 'PRESENCE': True, **NOBODY},
    'own/*': {'HISTORY_SIZE': 200, 'KEEP': 0, **ANYONE},
    'orders': NOBODY,
    'tasks': NOBODY,
    'task/*': NOBODY,
    'inbox': NOBODY,
    'notifications': NOBODY,
}
WS4REDIS_RPC = {'demo.figures': 'showcase.figures.figures'}

# Under WEBSOCKET_URL, so that whatever leads websockets to the loop leads these there as well.
WS4REDIS_HANDLERS = {
    r'/ws/live/counter': 'livepages.handlers.RandomCounter',
    r'/ws/live/visitors': 'livepages.handlers.Visitor',
}

# What the page that breaks things may break; demo.py says so.
DEMO_RESTARTS_SERVER = from_environment('CHATSERVER_RESTARTS_SERVER') == '1'
DEMO_OWNS_REDIS = from_environment('CHATSERVER_OWNS_REDIS') == '1'

"""The Django settings that all contenders with Django share, configured by the environment."""

import os
from typing import Any

_REDIS_URL = f'redis://127.0.0.1:{os.environ["BENCH_REDIS_PORT"]}'

SECRET_KEY = 'only-for-the-benchmark'
DEBUG = False
ALLOWED_HOSTS = ['127.0.0.1', 'localhost']
USE_TZ = True

INSTALLED_APPS = [
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
]
DATABASES: dict[str, dict[str, Any]] = {
    'default': {
        'ENGINE': 'django.db.backends.sqlite3',
        'NAME': os.environ['BENCH_DIRECTORY'] + '/users.sqlite3',
    }
}
CACHES = {
    'default': {
        'BACKEND': 'django.core.cache.backends.redis.RedisCache',
        'LOCATION': _REDIS_URL + '/1',
    }
}
SESSION_ENGINE = 'django.contrib.sessions.backends.cache'
LOGGING_CONFIG = None

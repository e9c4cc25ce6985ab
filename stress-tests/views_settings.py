"""Settings of stress-tests/views_server.py: the middleware of a new Django project."""

import os

SECRET_KEY = 'only-for-the-measurement'
DEBUG = False
ALLOWED_HOSTS = ['127.0.0.1']
USE_TZ = True
ROOT_URLCONF = 'views_server'
INSTALLED_APPS = [
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
    'django.contrib.messages',
    'ws4redis',
]
MIDDLEWARE = [
    'django.middleware.security.SecurityMiddleware',
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.middleware.common.CommonMiddleware',
    'django.middleware.csrf.CsrfViewMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
    'django.contrib.messages.middleware.MessageMiddleware',
    'django.middleware.clickjacking.XFrameOptionsMiddleware',
]
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}
WS4REDIS_CONNECTION = {'host': '127.0.0.1', 'port': int(os.environ['BENCH_REDIS_PORT'])}
# Measured is how fast it can be, not how fast a client may be by default.
WS4REDIS_MAX_MESSAGES_PER_SECOND = WS4REDIS_MAX_BYTES_PER_SECOND = None
WS4REDIS_MAX_PINGS_PER_SECOND = None

"""Settings for the example's own tests, which bring their own Redis."""

from chatserver.settings import *  # noqa: F403

SECRET_KEY = 'for the tests alone'
DEBUG = False
ALLOWED_HOSTS = ['localhost', '127.0.0.1', 'testserver']
PASSWORD_HASHERS = [
    'django.contrib.auth.hashers.MD5PasswordHasher',
    # That of the fixture.
    'django.contrib.auth.hashers.PBKDF2PasswordHasher',
]
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}
LOGGING = {
    'version': 1,
    'disable_existing_loggers': False,
    'handlers': {'null': {'class': 'logging.NullHandler'}},
    'loggers': {
        name: {'handlers': ['null'], 'propagate': False}
        for name in ('chatserver', 'django.request', 'django.server', 'ws4redis')
    },
}

TEST_RUNNER = 'chatserver.tests.runner.RedisTestRunner'

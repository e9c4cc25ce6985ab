"""Whether the Django project is set up for websockets."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.checks import ERROR, WARNING

from ws4redis.conf import conf
from ws4redis.doctor.findings import Finding, error, good, note, warning
from ws4redis.handshake.connection_limits import RESERVED_DESCRIPTORS
from ws4redis.settings.checks import check_settings
from ws4redis.settings.runserver import foreign_runserver

CONTEXT_PROCESSOR = 'ws4redis.context_processors.default'
RUNSERVER_APPLICATION = 'ws4redis.django_runserver.application'
SCRIPT = 'js/ws4redis.js'
# Each open file, log and database connection takes one as well.
FEW_DESCRIPTORS = 4096


def examine_project() -> Iterator[Finding]:
    """Yield findings about the settings of the project and of this machine."""
    yield from _settings()
    yield _runserver()
    yield _hosts()
    yield from _sessions()
    yield _context_processor()
    yield _static_file()
    yield _descriptors()
    yield _accelerator()


def _settings() -> Iterator[Finding]:
    grave = {ERROR: error, WARNING: warning}
    messages = [message for message in check_settings() if message.level in grave]
    for message in messages:
        yield grave[message.level](
            'settings', f'{message.msg} ({message.id})', str(message.hint or '')
        )
    if not messages:
        yield good('settings', 'the system checks find nothing wrong')


def _runserver() -> Finding:
    foreign = foreign_runserver()
    if foreign is not None:
        text = f'manage.py runserver is that of {foreign}, which does not look at it'
        remedy = (
            f"Put 'django.contrib.staticfiles' before {foreign!r} in INSTALLED_APPS, or use "
            'manage.py run_wsserver beside it.'
        )
        return (error if settings.DEBUG else note)('WSGI_APPLICATION', text, remedy)
    if settings.WSGI_APPLICATION == RUNSERVER_APPLICATION:
        return good('WSGI_APPLICATION', 'manage.py runserver serves websockets')
    text = f'is {settings.WSGI_APPLICATION!r}, so manage.py runserver serves no websockets'
    remedy = f"For development set WSGI_APPLICATION = '{RUNSERVER_APPLICATION}'."
    if settings.DEBUG:
        return error('WSGI_APPLICATION', text, remedy)
    return note('WSGI_APPLICATION', text, f'{remedy} In production it is not looked at.')


def _hosts() -> Finding:
    if settings.ALLOWED_HOSTS or settings.DEBUG:
        return good('ALLOWED_HOSTS', f'is {settings.ALLOWED_HOSTS}')
    return error(
        'ALLOWED_HOSTS',
        'is empty while DEBUG is off: every handshake is answered with 400',
        'Name the hosts of this site in ALLOWED_HOSTS.',
    )


def _sessions() -> Iterator[Finding]:
    subject = 'session engine'
    engine = settings.SESSION_ENGINE
    if not apps.is_installed('django.contrib.sessions') and 'sessions.backends.db' in engine:
        yield note(
            subject,
            'django.contrib.sessions is not installed, so no websocket has a user',
            'Install it, or set WS4REDIS_PROCESS_REQUEST, for channels of users and groups.',
        )
        return
    if engine.endswith(('.cache', '.cached_db')):
        backend = settings.CACHES.get(settings.SESSION_CACHE_ALIAS, {}).get('BACKEND', '')
        if 'locmem' in backend or 'dummy' in backend:
            yield error(
                subject,
                f'{engine} over {backend}: sessions live in the memory of one process, and the '
                'websocket loop of another one does not see them',
                'Use a cache that processes share, such as '
                'django.core.cache.backends.redis.RedisCache.',
            )
            return
        yield good(subject, engine)
    elif engine.endswith('.db'):
        yield note(
            subject,
            f'{engine}: each handshake of a logged-in user asks the database for the session',
            "With a shared cache, SESSION_ENGINE = 'django.contrib.sessions.backends.cached_db' "
            'spares that.',
        )
    else:
        yield good(subject, engine)


def _context_processor() -> Finding:
    engines: list[dict[str, Any]] = list(settings.TEMPLATES)
    for engine in engines:
        if CONTEXT_PROCESSOR in engine.get('OPTIONS', {}).get('context_processors', ()):
            return good('context processor', 'templates have WEBSOCKET_URI')
    return warning(
        'context processor',
        'templates have no WEBSOCKET_URI and no WS4REDIS_HEARTBEAT',
        f"Add '{CONTEXT_PROCESSOR}' to the context_processors in TEMPLATES.",
    )


def _static_file() -> Finding:
    if not apps.is_installed('django.contrib.staticfiles'):
        return warning(
            'static file',
            f'django.contrib.staticfiles is not installed, so nothing finds {SCRIPT}',
            "Add 'django.contrib.staticfiles' to INSTALLED_APPS.",
        )
    if finders.find(SCRIPT) is None:
        return error(
            'static file',
            f'{SCRIPT} is not found',
            'AppDirectoriesFinder must be among STATICFILES_FINDERS.',
        )
    root = settings.STATIC_ROOT
    if not settings.DEBUG and root and not (Path(root) / SCRIPT).exists():
        return warning(
            'static file',
            f'{SCRIPT} is not in STATIC_ROOT ({root})',
            'Run manage.py collectstatic.',
        )
    return good('static file', f'{SCRIPT} is found')


def _descriptors() -> Finding:
    subject = 'file descriptors'
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = conf.WS4REDIS_MAX_CONNECTIONS
    remedy = (
        'Raise it for the process of the websocket loop: LimitNOFILE= in a systemd unit, ulimit -n '
        'in a shell, --max-fd of uWSGI.'
    )
    if limit == resource.RLIM_INFINITY:
        return good(subject, 'are not limited')
    if wanted is not None and wanted + RESERVED_DESCRIPTORS > limit:
        return error(
            subject,
            f'this shell permits {limit}, too few for WS4REDIS_MAX_CONNECTIONS = {wanted} and '
            f'{RESERVED_DESCRIPTORS} others',
            remedy,
            limit=limit,
        )
    if limit < FEW_DESCRIPTORS:
        return warning(
            subject,
            f'this shell permits {limit}: each websocket takes one',
            remedy,
            limit=limit,
        )
    return good(subject, f'this shell permits {limit}', limit=limit)


def _accelerator() -> Finding:
    if find_spec('wsaccel') is not None:
        return good('wsaccel', 'is installed')
    return note(
        'wsaccel',
        f'is not installed for Python {sys.version_info.major}.{sys.version_info.minor}: what '
        'browsers send is unmasked in pure Python',
        'pip install wsaccel, if browsers send much.',
    )

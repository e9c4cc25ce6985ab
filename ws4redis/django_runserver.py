"""Public names: the WSGI application for `manage.py runserver`."""

from __future__ import annotations

from ws4redis.applications.runserver import DevelopmentServer, application

__all__ = [
    'DevelopmentServer',
    'application',
]

"""Which ``manage.py runserver`` is in force, since several packages bring their own."""

from __future__ import annotations

from typing import Any

from django.core.management import get_commands, load_command_class
from django.core.management.commands.runserver import Command as DjangosCommand


def foreign_runserver() -> str | None:
    """Return the app whose ``runserver`` starts a server of its own, ``None`` if none does.

    Such a command, daphne's for one, does not look at ``WSGI_APPLICATION``. Those that build on
    Django's and leave its server alone, as that of ``django.contrib.staticfiles``, do.
    """
    app: Any = get_commands().get('runserver')
    command = load_command_class(app, 'runserver') if isinstance(app, str) else app
    inner_run = getattr(type(command), 'inner_run', None)
    if inner_run is DjangosCommand.inner_run:
        return None
    return app if isinstance(app, str) else type(command).__module__

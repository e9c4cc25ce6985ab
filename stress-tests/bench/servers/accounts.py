"""Create users, each with a session, and print the sessions' keys, one per line.

Usage: python -m bench.servers.accounts COUNT
"""

import os
import sys
from importlib import import_module

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'bench.servers.django_settings')

import django

django.setup()

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.core.management import call_command


def main(count: int) -> None:
    """Create `count` users and sessions."""
    call_command('migrate', verbosity=0, interactive=False)
    User.objects.bulk_create(
        User(username=f'user{number}', password=f'!{number}') for number in range(count)
    )
    sessions = import_module(settings.SESSION_ENGINE)
    for user in User.objects.order_by('pk'):
        session = sessions.SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = 'django.contrib.auth.backends.ModelBackend'
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        # What ws4redis' receiver stores at login.
        session['ws4redis:memberof'] = []
        session.save()
        print(session.session_key)


if __name__ == '__main__':
    main(int(sys.argv[1]))

"""Measure how long a logout takes to reach the websockets of a session.

    python stress-tests/logout.py [number of websockets]

It starts a Redis, serves in this process, and needs nothing else. Fails where it takes longer than
a second.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import django

django.setup()

from bench.figures import tell
from django.contrib.auth import logout
from django.test import override_settings
from django.test.utils import setup_databases, teardown_databases

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.serving import served
from tests.websocket_client import WebSocketCrowd
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.protocol.end_codes import EndCode

MAX_SECONDS = 1.0


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        with (
            RedisServer() as redis_server,
            # Opening them all takes longer than a ping may.
            override_settings(
                WS4REDIS_CONNECTION=redis_server.connection, WS4REDIS_PING_INTERVAL=None
            ),
            served(WebSocketServer()) as server,
        ):
            request = logged_in_request(make_user('mary'))
            cookie = {'Cookie': f'sessionid={request.session.session_key}'}
            url = f'{server.ws_url}/ws/inbox?subscribe-user'
            with WebSocketCrowd([url] * number, headers=cookie, at_once=5) as crowd:
                began = time.monotonic()
                logout(request)
                codes = {end[0] for end in crowd.receive_close(timeout=30) if end is not None}
                seconds = time.monotonic() - began
            tell({f'a logout reaches {number:,} websockets, s': seconds})
            print(f'{number} websockets closed with {codes} {seconds:.3f} s after the logout began')
        return 0 if codes == {EndCode.LOGGED_OUT} and seconds <= MAX_SECONDS else 1
    finally:
        teardown_databases(databases, verbosity=0)


if __name__ == '__main__':
    sys.exit(main())

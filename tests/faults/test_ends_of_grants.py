"""What was granted ends in every process, also in one that was cut off from Redis meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import logout
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.utils import timezone

from tests.clients.cuttable import Cuttable
from tests.django_requests import logged_in_request, make_user
from tests.e2e.kinds import uwsgi
from tests.programs import RedisServer, UwsgiServer
from tests.timeouts import SOON_SECONDS, scaled, wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.control import disconnect
from ws4redis.protocol.end_codes import EndCode
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)

PREFIX = 'ends'
CUT_OFF_SECONDS = 10.0
#: How long a process takes to connect again, at most; then it has a second.
BACK_SECONDS = scaled(8)


def change_password(request: Any) -> None:
    request.user.set_password('another')
    request.user.save()


def deactivate(request: Any) -> None:
    request.user.is_active = False
    request.user.save()


def clear_sessions(request: Any) -> None:
    yesterday = timezone.now() - timedelta(days=1)
    Session.objects.filter(pk=request.session.session_key).update(expire_date=yesterday)
    call_command('clearsessions')


def leave_group(request: Any) -> None:
    request.user.groups.clear()


ENDS: dict[str, tuple[Callable[[Any], object], int]] = {
    'logout': (logout, EndCode.LOGGED_OUT),
    'password': (change_password, EndCode.CREDENTIALS_CHANGED),
    'inactive': (deactivate, EndCode.DEACTIVATED),
    'deletion': (lambda request: request.user.delete(), EndCode.DELETED),
    'flush': (lambda request: request.session.flush(), EndCode.SESSION_ENDED),
    'clearsessions': (clear_sessions, EndCode.SESSION_ENDED),
    'group': (leave_group, EndCode.GROUPS_CHANGED),
    'disconnect': (lambda request: disconnect(user=request.user), EndCode.DISCONNECTED),
}


@pytest.fixture
def near(redis_server: RedisServer, django_db_setup: None) -> Iterator[UwsgiServer]:
    with uwsgi(redis_server, {'WS4REDIS_PREFIX': PREFIX}) as server:
        yield server


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Cuttable]:
    with Cuttable(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def far(redis_server: RedisServer, proxy: Cuttable, near: UwsgiServer) -> Iterator[UwsgiServer]:
    """A server that reaches Redis by the proxy alone."""
    connection = {**redis_server.connection, 'host': '127.0.0.1', 'port': proxy.port}
    # The test reads late.
    settings = {
        'WS4REDIS_CONNECTION': connection,
        'WS4REDIS_CLOSE_TIMEOUT': 10,
        'WS4REDIS_PREFIX': PREFIX,
    }
    with uwsgi(redis_server, settings) as server:
        yield server


def connect(server: UwsgiServer, request: Any) -> RawWebSocket:
    cookie = f'sessionid={request.session.session_key}'
    address = f'{server.ws_url}/ws/inbox?subscribe=user,group,session'
    return RawWebSocket(address, headers={'Cookie': cookie})


def publish(text: str, names: list[str], keys: list[str]) -> None:
    publisher = RedisPublisher(facility='inbox', users=names, sessions=keys, groups=['former'])
    publisher.publish_message(text, expire=0)


@pytest.fixture(autouse=True)
def _alone(settings: Any) -> None:
    # Servers of other tests may still run on the same Redis, and would be counted.
    settings.WS4REDIS_PREFIX = PREFIX


def listeners(redis_server: RedisServer) -> int:
    with redis_server.client() as client:
        return int(client.pubsub_numsub(f'{PREFIX}:ws4redis:control')[0][1])


def test_nothing_private_is_delivered_once_its_reason_has_ended(
    redis_server: RedisServer, near: UwsgiServer, far: UwsgiServer, proxy: Cuttable
) -> None:
    Group.objects.get_or_create(name='former')
    requests = {end: logged_in_request(make_user(end, groups=['former'])) for end in ENDS}
    keys = [str(request.session.session_key) for request in requests.values()]
    bystander = logged_in_request(make_user('bystander'))
    with ExitStack() as stack:
        nearby = {
            end: stack.enter_context(connect(near, request)) for end, request in requests.items()
        }
        away = {
            end: stack.enter_context(connect(far, request)) for end, request in requests.items()
        }
        untouched = [stack.enter_context(connect(server, bystander)) for server in (near, far)]
        wait_until(lambda: listeners(redis_server) == 2)
        # Until the sessions' expiries have been looked up: what is gone then is known by that.
        time.sleep(scaled(1))
        proxy.hold()
        proxy.cut()
        wait_until(lambda: listeners(redis_server) == 1)
        cut_off_since = time.monotonic()
        for end, request in requests.items():
            ENDS[end][0](request)
        for end, websocket in nearby.items():
            assert websocket.receive_close(timeout=SOON_SECONDS)[0] == ENDS[end][1], end
        publish('nobody is to see this', list(ENDS), keys)
        time.sleep(max(0.0, CUT_OFF_SECONDS - (time.monotonic() - cut_off_since)))
        proxy.let_in()
        wait_until(lambda: listeners(redis_server) == 2, timeout=BACK_SECONDS)
        time.sleep(scaled(1))
        publish('nor this', list(ENDS), keys)
        for end, websocket in away.items():
            # A message before the close frame would be a failure.
            assert websocket.receive_close(timeout=SOON_SECONDS)[0] == ENDS[end][1], end
        RedisPublisher(facility='inbox', users=['bystander']).publish_message('still here')
        for websocket in untouched:
            assert websocket.receive(timeout=SOON_SECONDS) == 'still here'


def test_a_session_ends_when_it_expires(near: UwsgiServer) -> None:
    request = logged_in_request(make_user('mary'))
    soon = timezone.now() + timedelta(seconds=scaled(2))
    Session.objects.filter(pk=request.session.session_key).update(expire_date=soon)
    with connect(near, request) as websocket:
        assert websocket.receive_close(timeout=SOON_SECONDS)[0] == EndCode.SESSION_ENDED


def test_the_sweep_finds_what_no_signal_tells(
    redis_server: RedisServer, django_db_setup: None
) -> None:
    request = logged_in_request(make_user('mary'))
    other = logged_in_request(make_user('john'))
    server_settings = {'WS4REDIS_PREFIX': PREFIX, 'WS4REDIS_REVALIDATE_SECONDS': 1}
    with uwsgi(redis_server, server_settings) as server:
        with connect(server, request) as websocket, connect(server, other) as untouched:
            User.objects.filter(username='mary').update(is_active=False)
            code, _ = websocket.receive_close(timeout=SOON_SECONDS)
            assert code == EndCode.DEACTIVATED
            RedisPublisher(facility='inbox', users=['john']).publish_message('still here')
            assert untouched.receive(timeout=SOON_SECONDS) == 'still here'


def test_a_process_that_missed_too_much_looks_everybody_up(
    redis_server: RedisServer, near: UwsgiServer, far: UwsgiServer, proxy: Cuttable
) -> None:
    request = logged_in_request(make_user('mary'))
    other = logged_in_request(make_user('john'))
    with connect(far, request) as websocket, connect(far, other) as untouched:
        wait_until(lambda: listeners(redis_server) == 1)
        proxy.hold()
        proxy.cut()
        wait_until(lambda: listeners(redis_server) == 0)
        User.objects.get(username='mary').delete()
        with redis_server.client() as client:
            # As if its bounds had been passed.
            client.delete(f'ws4redis:stream:{{{PREFIX}:ws4redis:control}}')
        proxy.let_in()
        assert websocket.receive_close(timeout=BACK_SECONDS + SOON_SECONDS)[0] == EndCode.DELETED
        RedisPublisher(facility='inbox', users=['john']).publish_message('still here')
        assert untouched.receive(timeout=SOON_SECONDS) == 'still here'

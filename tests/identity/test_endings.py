"""What was granted to open websockets ends when its reason does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import logout
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.utils import timezone

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import RawWebSocket
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.control import disconnect
from ws4redis.protocol.end_codes import EndCode
from ws4redis.publisher import RedisPublisher

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    with served(WebSocketServer()) as server:
        yield server


@pytest.fixture
def request_of_mary() -> Any:
    return logged_in_request(make_user('mary'))


def connect(server: Served, request: Any, options: str = 'subscribe=user,group') -> RawWebSocket:
    cookie = f'sessionid={request.session.session_key}'
    return RawWebSocket(f'{server.ws_url}/ws/inbox?{options}', headers={'Cookie': cookie})


def close_code(websocket: RawWebSocket) -> int:
    return websocket.receive_close(timeout=SOON_SECONDS)[0]


def change_password(request: Any) -> None:
    request.user.set_password('another')
    request.user.save()


def deactivate(request: Any) -> None:
    request.user.is_active = False
    request.user.save(update_fields=['is_active'])


def clear_sessions(request: Any) -> None:
    yesterday = timezone.now() - timedelta(days=1)
    Session.objects.filter(pk=request.session.session_key).update(expire_date=yesterday)
    call_command('clearsessions')


def join_group(request: Any) -> None:
    request.user.groups.add(Group.objects.create(name='editors'))


def rename(request: Any) -> None:
    request.user.username = 'maria'
    request.user.save()


ENDS: dict[str, tuple[Callable[[Any], object], int]] = {
    'logout': (logout, EndCode.LOGGED_OUT),
    'password': (change_password, EndCode.CREDENTIALS_CHANGED),
    'deactivated': (deactivate, EndCode.DEACTIVATED),
    'deleted': (lambda request: request.user.delete(), EndCode.DELETED),
    'flushed': (lambda request: request.session.flush(), EndCode.SESSION_ENDED),
    'cleared': (clear_sessions, EndCode.SESSION_ENDED),
    'group': (join_group, EndCode.GROUPS_CHANGED),
    'renamed': (rename, EndCode.CREDENTIALS_CHANGED),
    'disconnected': (lambda request: disconnect(user='mary'), EndCode.DISCONNECTED),
    'disconnected-session': (
        lambda request: disconnect(session=request.session),
        EndCode.DISCONNECTED,
    ),
}


@pytest.mark.parametrize('end', ENDS)
def test_a_websocket_ends_with_what_it_was_granted_for(
    server: Served, request_of_mary: Any, end: str
) -> None:
    others = logged_in_request(make_user('john'))
    with connect(server, request_of_mary) as websocket, connect(server, others) as other:
        what_ends, code = ENDS[end]
        what_ends(request_of_mary)
        assert close_code(websocket) == code
        RedisPublisher(facility='inbox', users=['john']).publish_message('still here')
        assert other.receive() == 'still here'


def test_who_is_no_longer_staff_is_asked_anew(server: Served, request_of_mary: Any) -> None:
    user = request_of_mary.user
    user.is_staff = True
    user.save()
    with connect(server, request_of_mary) as websocket:
        user.is_staff = False
        user.save(update_fields=['is_staff'])
        assert close_code(websocket) == EndCode.GROUPS_CHANGED

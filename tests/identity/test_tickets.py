"""Tickets: clients that come back need neither session store nor database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import logout
from django.test import override_settings

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS, wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.handshake import clients, tokens
from ws4redis.handshake.identity import identity_of as look_up
from ws4redis.handshake.tokens import ticket_of
from ws4redis.hub import control
from ws4redis.hub.clients import connection
from ws4redis.hub.identity import Identity, digest_of
from ws4redis.publishing.tokens import claims_of
from ws4redis.servers.process import drop_hub, existing_hub

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    with served(WebSocketServer()) as server:
        yield server


@pytest.fixture
def login() -> Any:
    return logged_in_request(make_user('mary'))


def open_with(server: Served, login: Any, ticket: str = '') -> tuple[RawWebSocket, Any]:
    """Open a connection, and return it with the answer to the first command."""
    key = login.session.session_key if login is not None else None
    websocket = RawWebSocket(
        f'{server.ws_url}/ws/connection/websocket?ticket={ticket}',
        headers={'Cookie': f'sessionid={key}'} if key else {},
    )
    websocket.send(json.dumps({'id': 1, 'connect': {'data': {'ticket': True}}}))
    return websocket, json.loads(websocket.receive(timeout=SOON_SECONDS))


def ask(websocket: RawWebSocket, **command: Any) -> Any:
    websocket.send(json.dumps({'id': 2, **command}))
    return json.loads(websocket.receive(timeout=SOON_SECONDS))


@pytest.fixture
def ticket(server: Served, login: Any) -> str:
    websocket, answer = open_with(server, login)
    hub = existing_hub()
    assert hub is not None
    assert hub.endings is not None
    # Before that, a process takes nobody's word for what has not ended.
    control = hub.endings.control
    wait_until(lambda: control.is_current)
    with websocket:
        ticket: str = answer['connect']['data']['ticket']
        assert login.session.session_key not in ticket
        return ticket


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests for which session and user were looked up."""
    asked: list[str] = []

    def identity_of(request: Any, **options: Any) -> Identity:
        asked.append(request.path)
        return look_up(request, **options)

    monkeypatch.setattr(clients, 'identity_of', identity_of)
    return asked


def is_mary(websocket: RawWebSocket) -> bool:
    return 'subscribe' in ask(websocket, subscribe={'channel': 'user:inbox'})


def test_who_shows_a_ticket_is_not_looked_up(
    server: Served, login: Any, ticket: str, asked: list[str]
) -> None:
    websocket, answer = open_with(server, login, ticket)
    with websocket:
        assert answer['connect']['data']['ticket']
        assert asked == []
        assert is_mary(websocket)
        assert 'subscribe' in ask(websocket, subscribe={'channel': 'session:cart'})


def test_a_process_that_has_just_begun_lets_tickets_wait_rather_than_look_all_up(
    server: Served, login: Any, ticket: str, asked: list[str]
) -> None:
    asked.clear()
    # The next handshake finds a process that knows nothing yet of what has ended.
    drop_hub()
    websocket, answer = open_with(server, login, ticket)
    with websocket:
        assert answer['connect']['data']['ticket']
    assert asked == []


def test_a_ticket_is_refused_once_its_session_has_ended(
    server: Served, login: Any, ticket: str, asked: list[str]
) -> None:
    # The cookie of before the logout, as a thief would have it.
    key = login.session.session_key
    first, _ = open_with(server, login, ticket)
    with first:
        logout(login)
        first.receive_close(timeout=SOON_SECONDS)
    login.session._session_key = key
    websocket, answer = open_with(server, login, ticket)
    with websocket:
        assert len(asked) == 1
        assert 'data' not in answer['connect']
        assert not is_mary(websocket)


def test_no_clock_lets_a_ticket_outlive_its_session(
    server: Served, login: Any, ticket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = login.session.session_key
    identity = Identity(user='mary', session=key, session_digest=digest_of(key))
    now = time.time()
    with monkeypatch.context() as ahead:
        ahead.setattr(tokens, 'time', SimpleNamespace(time=lambda: now + 60))
        early = ticket_of(identity)
    first, _ = open_with(server, login, ticket)
    with first:
        logout(login)
        first.receive_close(timeout=SOON_SECONDS)
    hub = existing_hub()
    assert hub is not None
    assert hub.endings is not None
    # A minute later, when the logout is long ago.
    monkeypatch.setattr(control, 'time', SimpleNamespace(time=lambda: now + 70))
    assert tokens.identity_of_ticket(str(early), key, hub.endings.control) is None


def test_a_ticket_is_nothing_without_the_cookie_of_its_session(
    server: Served, login: Any, ticket: str, asked: list[str]
) -> None:
    other = logged_in_request(make_user('john'))
    for who, number in ((other, 1), (None, 1)):
        websocket, _ = open_with(server, who, ticket)
        with websocket:
            assert len(asked) == number
            assert is_mary(websocket) == (who is not None)
    assert ticket_of(Identity(user='mary')) is None


def test_an_expired_or_forged_ticket_is_looked_up(
    server: Served, login: Any, asked: list[str]
) -> None:
    key = login.session.session_key
    expired = ticket_of(
        Identity(user='john', session=key, session_digest=digest_of(key)), seconds=-10
    )
    for shown in (expired, 'nonsense', ''):
        websocket, answer = open_with(server, login, str(shown))
        with websocket:
            assert 'connect' in answer
    assert len(asked) == 3


def test_a_ticket_is_refused_after_the_user_has_changed(
    server: Served, login: Any, ticket: str, asked: list[str]
) -> None:
    first, _ = open_with(server, login, ticket)
    with first:
        login.user.set_password('another')
        login.user.save()
        first.receive_close(timeout=SOON_SECONDS)
    websocket, _ = open_with(server, login, ticket)
    with websocket:
        assert len(asked) == 1


def test_a_connection_gets_another_ticket_before_its_last_one_ends(
    redis_server: RedisServer, login: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, 'RENEW_TICKET_AFTER_SECONDS', 0)
    with override_settings(WS4REDIS_PING_INTERVAL=1), served(WebSocketServer()) as server:
        websocket, answer = open_with(server, login)
        with websocket:
            push: dict[str, Any] = {}
            while not push:
                # Pings come between.
                push = json.loads(websocket.receive(timeout=SOON_SECONDS))
        ticket = push['push']['ticket']
        assert claims_of(ticket)['iat'] > claims_of(answer['connect']['data']['ticket'])['iat']

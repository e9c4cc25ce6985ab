"""Connections and subscriptions by token, in the client protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from django.contrib.auth import logout
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import RawWebSocket
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.control import disconnect, unsubscribe
from ws4redis.protocol.end_codes import EndCode
from ws4redis.publisher import RedisPublisher
from ws4redis.publishing.tokens import InvalidToken, claims_of, sign
from ws4redis.tokens import connection_token, subscription_token

pytestmark = pytest.mark.django_db(transaction=True)

INVALID_TOKEN, TOKEN_EXPIRED, PERMISSION_DENIED = 3500, 109, 103
KEY = 'a key of HMAC'


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    facilities = {'secret': {'SUBSCRIBE': 'token'}}
    with override_settings(WS4REDIS_FACILITIES=facilities), served(WebSocketServer()) as server:
        yield server


class Client:
    """Speak the protocol by hand."""

    def __init__(self, server: Served) -> None:
        self.websocket = RawWebSocket(f'{server.ws_url}/ws/connection/websocket')
        self._number = 0

    def __enter__(self) -> Client:
        self.websocket.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.websocket.__exit__(*exc)

    def ask(self, **command: Any) -> Any:
        self._number += 1
        self.websocket.send(json.dumps({'id': self._number, **command}))
        return json.loads(self.websocket.receive(timeout=SOON_SECONDS))

    def connect(self, token: str) -> Any:
        return self.ask(connect={'token': token})


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def refusal(client: Client, token: str) -> int:
    client.websocket.send(json.dumps({'id': 1, 'connect': {'token': token}}))
    return client.websocket.receive_close(timeout=SOON_SECONDS)[0]


def test_a_token_says_who_it_is_and_ends_with_the_password(client: Client) -> None:
    mary = make_user('mary')
    assert client.connect(connection_token(mary))['connect']['expires'] is True
    assert 'subscribe' in client.ask(subscribe={'channel': 'user:inbox'})
    RedisPublisher(facility='inbox', users=['mary']).publish_message('for mary')
    push = json.loads(client.websocket.receive(timeout=SOON_SECONDS))
    assert push['push']['pub']['data'] == 'for mary'
    mary.set_password('another')
    mary.save()
    code, _ = client.websocket.receive_close(timeout=SOON_SECONDS)
    assert code == EndCode.CREDENTIALS_CHANGED


def test_a_token_of_a_session_ends_with_it_and_is_refused_afterwards(
    server: Served, client: Client
) -> None:
    login = logged_in_request(make_user('mary'))
    token = connection_token(login.user, session=login.session)
    assert 'connect' in client.connect(token)
    logout(login)
    assert client.websocket.receive_close(timeout=SOON_SECONDS)[0] == EndCode.LOGGED_OUT
    with Client(server) as again:
        assert refusal(again, token) == INVALID_TOKEN


def test_a_token_stays_good_where_its_session_has_not_ended(server: Served, client: Client) -> None:
    login = logged_in_request(make_user('mary'))
    token = connection_token(login.user, session=login.session)
    assert 'connect' in client.connect(token)
    unsubscribe('chat', session=login.session)
    disconnect(session=login.session, code=4000)
    assert client.websocket.receive_close(timeout=SOON_SECONDS)[0] == 4000
    with Client(server) as again:
        assert 'connect' in again.connect(token)
        disconnect(session=login.session)
        assert again.websocket.receive_close(timeout=SOON_SECONDS)[0] == EndCode.DISCONNECTED
    with Client(server) as again:
        assert refusal(again, token) == INVALID_TOKEN


def test_a_token_of_a_host_whose_clock_is_ahead_is_taken(client: Client) -> None:
    now = time.time()
    assert 'connect' in client.connect(sign({'sub': 'mary', 'iat': now + 3, 'exp': now + 600}))


def test_a_token_of_before_a_deactivation_is_refused(server: Served, client: Client) -> None:
    mary = make_user('mary')
    token = connection_token(mary)
    # The process has to listen, and to be told.
    assert 'connect' in client.connect(token)
    mary.is_active = False
    mary.save()
    assert client.websocket.receive_close(timeout=SOON_SECONDS)[0] == EndCode.DEACTIVATED
    with Client(server) as again:
        assert refusal(again, token) == INVALID_TOKEN


def test_a_foreign_user_can_be_disconnected_by_name(client: Client) -> None:
    assert 'connect' in client.connect(connection_token('somebody elsewhere'))
    disconnect(user='somebody elsewhere')
    assert client.websocket.receive_close(timeout=SOON_SECONDS)[0] == EndCode.DISCONNECTED


def test_an_expired_token_is_told_and_another_one_is_taken(client: Client) -> None:
    mary = make_user('mary')
    answer = client.connect(connection_token(mary, expire=-10))
    assert answer['error']['code'] == TOKEN_EXPIRED
    assert 'connect' in client.connect(connection_token(mary))
    assert 'refresh' in client.ask(refresh={'token': connection_token(mary)})


@pytest.mark.parametrize(
    'token',
    [
        'no.token.at-all',
        jwt.encode({'sub': 'mary'}, '', algorithm='none'),
        jwt.encode({'sub': 'mary'}, 'another key' * 3, algorithm='HS256'),
        lambda: subscription_token('secret', 'mary'),
        lambda: jwt.encode({'sub': 7}, 'x' * 32, algorithm='HS256'),
    ],
    ids=['nonsense', 'none', 'key', 'subscription', 'claims'],
)
def test_what_is_no_token_of_a_connection_is_refused(client: Client, token: Any) -> None:
    assert refusal(client, token() if callable(token) else token) == INVALID_TOKEN


def test_a_subscription_token_lets_one_user_into_one_channel(client: Client) -> None:
    mary = make_user('mary')
    client.connect(connection_token(mary))

    def subscribe(token: str) -> Any:
        command: dict[str, Any] = {'channel': 'secret'}
        return client.ask(subscribe={**command, 'token': token} if token else command)

    for token in (
        '',
        subscription_token('another', mary),
        subscription_token('secret', 'john'),
        connection_token(mary),
        jwt.encode({'sub': 'mary', 'channel': 'secret'}, '', algorithm='none'),
    ):
        assert subscribe(token)['error']['code'] == PERMISSION_DENIED
    expired = subscribe(subscription_token('secret', mary, expire=-10))
    assert expired['error']['code'] == TOKEN_EXPIRED
    assert subscribe(subscription_token('broadcast:secret', mary))['subscribe']['expires'] is True


def test_a_key_may_be_given_as_text_and_changed() -> None:
    with override_settings(WS4REDIS_TOKEN_KEYS=KEY):
        token = connection_token('mary')
        # Any other program makes the same.
        foreign = jwt.encode({'sub': 'mary'}, KEY.ljust(64, '\0'), algorithm='HS256')
        assert claims_of(token)['sub'] == claims_of(foreign)['sub'] == 'mary'
    with override_settings(WS4REDIS_TOKEN_KEYS=['the new key', KEY]):
        assert claims_of(token)['sub'] == 'mary'
    with override_settings(WS4REDIS_TOKEN_KEYS=['the new key']), pytest.raises(InvalidToken):
        claims_of(token)


def test_the_fallbacks_of_the_secret_key_check_and_do_not_sign() -> None:
    with override_settings(SECRET_KEY='old'):
        token = connection_token('mary')
    with override_settings(SECRET_KEY='new', SECRET_KEY_FALLBACKS=['old']):
        assert claims_of(token)['sub'] == 'mary'
        newer = connection_token('mary')
    with override_settings(SECRET_KEY='old'), pytest.raises(InvalidToken):
        claims_of(newer)


def test_public_keys_check_tokens_and_are_no_secrets_of_hmac() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = ec.generate_private_key(ec.SECP256R1())
    form = PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(Encoding.PEM, form).decode()
    with override_settings(WS4REDIS_TOKEN_KEYS=public):
        claims = {'sub': 'mary', 'exp': time.time() + 60}
        assert claims_of(jwt.encode(claims, private, algorithm='ES256'))['sub'] == 'mary'
        # With the public key, which everybody knows, as the secret of HMAC.
        forged = jwt.api_jws.PyJWS()
        forged._algorithms['HS256'].prepare_key = lambda key: key  # type: ignore[method-assign]
        token = forged.encode(json.dumps(claims).encode(), public.encode(), algorithm='HS256')
        with pytest.raises(InvalidToken):
            claims_of(token)
        with pytest.raises(ImproperlyConfigured):
            connection_token('mary')

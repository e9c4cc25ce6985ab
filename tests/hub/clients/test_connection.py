"""Connections of the client protocol: how they begin, expire and end, with a scripted Redis."""

from __future__ import annotations

import time

import pytest

from tests.hub.clients.rig import Client, Project, advance
from tests.hub.rig import Clock, Home, answer_to, published
from ws4redis.exceptions import ClientError
from ws4redis.hub.clients.connection import ConnectionState
from ws4redis.hub.clients.project import Grant
from ws4redis.hub.identity import Identity
from ws4redis.hub.options import HubOptions
from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode
from ws4redis.protocol.frames import CloseCode

GRACE_SECONDS = 25.0


# Connecting


def test_a_client_connects_once_and_before_all_else(hub: Home, project: Project) -> None:
    client = Client(hub, project)
    assert client.connection.state is ConnectionState.NEW
    client.connect()
    client.send({'id': 9, 'connect': {}})
    assert client.end() == (DisconnectCode.BAD_REQUEST, 'bad request')
    early = Client(hub, project)
    early.send({'id': 1, 'subscribe': {'channel': 'x'}})
    assert early.end()[0] == DisconnectCode.BAD_REQUEST
    assert early.connection.state is ConnectionState.CLOSED


def test_who_does_not_connect_in_time_is_sent_away(
    hub: Home, client: Client, clock: Clock, project: Project
) -> None:
    connected = Client(hub, project).connect()
    advance(hub, clock, 10.1)
    assert client.end() == (DisconnectCode.STALE, 'stale')
    assert connected.connection.is_alive


def test_an_expired_token_can_be_followed_by_another_and_an_invalid_one_not(
    hub: Home, project: Project
) -> None:
    project.identities = {
        'old': ClientError(ErrorCode.TOKEN_EXPIRED, 'token expired'),
        'new': Identity(user='mary'),
        'forged': ClientError(DisconnectCode.INVALID_TOKEN, 'invalid token'),
    }
    client = Client(hub, project)
    assert client.ask('connect', token='old')['code'] == ErrorCode.TOKEN_EXPIRED
    assert client.connection.state is ConnectionState.NEW
    client.connect('new')
    assert client.connection.identity.user == 'mary'
    forger = Client(hub, project)
    forger.send({'id': 1, 'connect': {'token': 'forged'}})
    assert forger.end()[0] == DisconnectCode.INVALID_TOKEN


def test_anonymous_clients_are_let_in_only_where_they_may(hub: Home, project: Project) -> None:
    project.identities = {'t': Identity(user='mary')}
    client = Client(hub, project, allows_anonymous=False)
    assert client.ask('connect')['code'] == ErrorCode.UNAUTHORIZED
    client.connect('t')


def test_the_server_subscribes_before_it_answers(hub: Home, project: Project) -> None:
    client = Client(hub, project, 'news')
    client.send({'id': 1, 'connect': {}}, {'id': 2, 'ping': {}})
    assert client.told() == []
    assert client.connection.state is ConnectionState.CONNECTING
    client.confirm()
    connected, pong = client.told()
    assert connected['connect']['subs'].keys() == {'news'}
    assert pong == {'id': 2, 'ping': {}}


def test_code_for_tokens_that_raises_lets_nobody_in(
    hub: Home, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.identities = {'t': ValueError('a bug')}
    client = Client(hub, project)
    assert client.ask('connect', token='t')['code'] == ErrorCode.INTERNAL
    assert client.connection.state is ConnectionState.NEW
    assert 'a bug' in caplog.text


# What expires


def test_a_connection_ends_some_time_after_its_token_unless_it_is_refreshed(
    hub: Home, project: Project, clock: Clock
) -> None:
    now = time.time()
    project.identities = {
        'first': Identity(user='mary', expires=now + 100),
        'second': Identity(user='mary', expires=now + 400),
        'forged': ClientError(DisconnectCode.INVALID_TOKEN, 'invalid token'),
        'another': Identity(user='john', expires=now + 400),
    }
    client, lazy = Client(hub, project).connect('first'), Client(hub, project).connect('first')
    answer = client.ask('refresh', token='second')
    assert answer['expires'] is True
    assert 390 <= answer['ttl'] <= 400
    assert client.ask('refresh', token='another')['code'] == ErrorCode.PERMISSION_DENIED
    advance(hub, clock, 101)
    assert lazy.connection.is_alive
    advance(hub, clock, GRACE_SECONDS)
    assert lazy.end()[0] == DisconnectCode.EXPIRED
    assert client.connection.is_alive
    client.send({'id': 9, 'refresh': {'token': 'forged'}})
    assert client.end()[0] == DisconnectCode.INVALID_TOKEN


def test_a_subscription_ends_some_time_after_its_token_unless_it_is_refreshed(
    hub: Home, project: Project, clock: Clock
) -> None:
    client = Client(hub, project).connect()
    project.grant = Grant(is_allowed=True, expires=time.time() + 100)
    for channel in ('kept', 'lost'):
        reply = client.subscribe(channel, token='t')
        assert reply['subscribe']['expires'] is True
    project.grant = Grant(is_allowed=True, expires=time.time() + 400)
    assert 390 <= client.ask('sub_refresh', channel='kept', token='u')['ttl'] <= 400
    advance(hub, clock, 101)
    assert client.told() == []
    advance(hub, clock, GRACE_SECONDS)
    (push,) = client.told()
    assert push['push']['channel'] == 'lost'
    assert push['push']['unsubscribe']['code'] == 2501
    project.grant = Grant(is_allowed=False)
    answer = client.ask('sub_refresh', channel='kept', token='of another channel')
    assert answer['code'] == ErrorCode.PERMISSION_DENIED


# Its end


def test_nothing_is_left_of_a_connection_that_has_ended(
    hub: Home, project: Project, clock: Clock
) -> None:
    project.identities = {'t': Identity(user='mary', expires=time.time() + 100)}
    client = Client(hub, project).connect('t')
    project.grant = Grant(is_allowed=True, expires=time.time() + 100)
    client.subscribe('chat', token='t')
    client.websocket.lost()
    assert client.connection.state is ConnectionState.CLOSED
    assert len(client.connection.subscriptions) == 0
    # No timer of it tells anybody anything.
    advance(hub, clock, 1000)
    client.connection.disconnect(DisconnectCode.EXPIRED)
    client.connection.send('{}')
    assert hub.open_count == 0


@pytest.mark.parametrize(
    ('code', 'reason', 'told'),
    [
        (CloseCode.GOING_AWAY, '', DisconnectCode.SHUTDOWN),
        (CloseCode.SERVICE_RESTART, '', DisconnectCode.SHUTDOWN),
        (CloseCode.INTERNAL_ERROR, '', DisconnectCode.SERVER_ERROR),
        (CloseCode.INTERNAL_ERROR, 'no answer to a ping', DisconnectCode.NO_PONG),
        (CloseCode.TRY_AGAIN_LATER, 'cannot keep up', DisconnectCode.SLOW),
        (4501, 'logged out', 4501),
    ],
)
def test_what_the_loop_ends_it_with_is_told_in_the_words_of_the_protocol(
    client: Client, code: int, reason: str, told: int
) -> None:
    client.connect()
    client.websocket.close(code, reason)
    assert client.end()[0] == told


def test_a_client_that_never_reads_is_given_up(hub: Home, project: Project) -> None:
    hub.options = HubOptions(max_queue_bytes=100_000, ping_interval_seconds=None)
    client = Client(hub, project).connect()
    client.subscribe('chat')
    for _ in range(60):
        hub.redis.reply(published(b'broadcast:chat', b'x' * 20_000), 0)
        hub.turn(2)
    assert client.connection.state is ConnectionState.CLOSED
    assert client.websocket.channels == ()
    # What it was sent at last waits behind what it did not read.
    hub.turn_until(lambda: client.peer.receive_now() and not client.websocket.queued_bytes)
    assert client.end() == (DisconnectCode.SLOW, 'cannot keep up')
    assert set(hub.statistics.messages_not_delivered) == {CloseCode.TRY_AGAIN_LATER}


def test_who_ends_by_a_reply_leaves_its_channels_at_once(hub: Home, project: Project) -> None:
    client = Client(hub, project).connect()
    client.subscribe('chat')

    def push_to_who_has_gone() -> None:
        # The poller was asked before, so that only sending finds it out.
        client.peer.socket.close()
        client.connection.push('message', {'data': 1}, 'chat')

    hub.turn_until(lambda: hub.loop.timeout() != 0)
    hub.loop.call_soon(push_to_who_has_gone)
    hub.turn()
    assert client.connection.state is ConnectionState.CLOSED
    hub.turn_until(lambda: hub.loop.timeout() != 0)
    assert [b'UNSUBSCRIBE', b'broadcast:chat'] in hub.redis.commands(0)


def test_nothing_is_told_before_the_answer_to_connect(hub: Home, project: Project) -> None:
    client = Client(hub, project, 'early', 'late')
    client.send({'id': 1, 'connect': {}})
    held: list[bytes] = []
    for command in hub.redis.commands(0):
        answer = answer_to(command)
        if b'late' in command[1]:
            held.append(answer)
        else:
            hub.redis.reply(answer, 0)
    hub.turn(2)
    hub.redis.reply(published(b'broadcast:early', b'Hello'), 0)
    assert client.told() == []
    for answer in held:
        hub.redis.reply(answer, 0)
    connected, push = client.told()
    assert connected['connect']['subs'].keys() == {'early', 'late'}
    assert push == {'push': {'channel': 'early', 'pub': {'data': 'Hello'}}}

"""Connections of the client protocol: states, commands and ends, with a scripted Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hub.rig import Clock, Home, Peer, answer_to, published
from tests.websocket_client import CLOSE
from ws4redis.broker.client_names import ClientName
from ws4redis.broker.history import Page, PageRequest, Position
from ws4redis.exceptions import ClientError
from ws4redis.hub.channel import Gap, Outcome
from ws4redis.hub.clients.connection import COMMANDS_AT_ONCE, ClientConnection, ConnectionState
from ws4redis.hub.clients.options import ClientOptions
from ws4redis.hub.clients.project import Grant, Visitor
from ws4redis.hub.clients.service import ClientService
from ws4redis.hub.clients.websocket import ClientWebSocket
from ws4redis.hub.clients.wire import client_wire
from ws4redis.hub.identity import ANONYMOUS, Identity
from ws4redis.hub.options import HubOptions
from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode
from ws4redis.protocol.frames import CloseCode
from ws4redis.protocol.wire import PLAIN

GRACE_SECONDS = 25.0
GAP = Gap(Outcome.TRIMMED, Position('epoch', 7), None)


class Project:
    """Code of a project, as the test says."""

    def __init__(self) -> None:
        # None asks :meth:`may`, as for a policy that may block.
        self.decision: Grant | None = Grant(is_allowed=True)
        self.grant = Grant(is_allowed=True)
        self.identities: dict[str, Identity | Exception] = {}
        self.called: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    def decide(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant | None:
        return None if token else self.decision

    def may(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant:
        if self.error is not None:
            raise self.error
        return self.grant

    def needs_identifying(self, visitor: Visitor, token: str) -> bool:
        return bool(token)

    def identify(self, visitor: Visitor, token: str) -> Identity:
        found = self.identities[token]
        if isinstance(found, Exception):
            raise found
        return found

    def ticket(self, identity: Identity) -> str | None:
        return None

    def call(self, visitor: Visitor, method: str, data: Any) -> Any:
        self.called.append((method, data))
        if self.error is not None:
            raise self.error
        return data

    def read_page(self, request: PageRequest) -> Page:
        raise NotImplementedError


class Client:
    """The other end of a connection."""

    def __init__(self, hub: Home, project: Project, *names: str, **options: Any) -> None:
        self.hub = hub
        service = ClientService(hub, project, ClientOptions(**options))
        self.connection = ClientConnection(service, Visitor(ANONYMOUS), names)
        self.peer: Peer = hub.peer(
            receiver=self.connection,
            wire=client_wire(PLAIN, ''),
            websocket_class=ClientWebSocket,
        )
        assert isinstance(self.peer.websocket, ClientWebSocket)
        self.websocket = self.peer.websocket
        self.connection.begin(self.websocket)
        self._last = 1

    def send(self, *commands: Any) -> None:
        """Send commands in one frame."""
        self.peer.send('\n'.join(json.dumps(command) for command in commands))
        self.hub.turn(2)

    def told(self) -> list[Any]:
        """Return what has come, frame by frame."""
        self.hub.turn(2)
        return [
            json.loads(line) for frame in self.peer.messages() for line in str(frame).split('\n')
        ]

    def ask(self, command: str, /, **request: Any) -> Any:
        """Send a command, and return the only reply to it, or the error in it."""
        self._last += 1
        self.send({'id': self._last, command: request})
        (reply,) = self.told()
        assert reply['id'] == self._last
        return reply.get('error') or reply[command]

    def connect(self, token: str = '') -> Client:
        self.ask('connect', token=token)
        assert self.connection.state is ConnectionState.CONNECTED
        return self

    def subscribe(self, channel: str, **request: Any) -> Any:
        """Subscribe to a broadcast channel, and return the reply."""
        self._last += 1
        self.send({'id': self._last, 'subscribe': {'channel': channel, **request}})
        self.confirm()
        return self.told()[-1]

    def confirm(self) -> None:
        """Let Redis confirm all subscriptions; nothing is kept in any channel."""
        self.hub.turn()
        for command in self.hub.redis.commands(0):
            self.hub.redis.reply(answer_to(command), 0)
        self.hub.turn(2)

    def end(self) -> tuple[int, str]:
        """Return code and reason of the close frame that has come."""
        self.hub.turn(2)
        frame = self.peer.frames()[-1]
        assert frame.opcode == CLOSE
        return int.from_bytes(frame.payload[:2], 'big'), frame.payload[2:].decode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> Iterator[Home]:
    with Home(options=HubOptions(ping_interval_seconds=None), clock=clock) as hub:
        hub.turn(2)
        yield hub


@pytest.fixture
def project() -> Project:
    return Project()


@pytest.fixture
def client(hub: Home, project: Project) -> Client:
    return Client(hub, project)


def advance(hub: Home, clock: Clock, seconds: float) -> None:
    clock.advance(seconds)
    hub.turn(3)


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


# Subscriptions


def test_a_subscription_is_told_once_redis_has_confirmed_it(hub: Home, client: Client) -> None:
    client.connect()
    client.send({'id': 2, 'subscribe': {'channel': 'chat'}})
    assert client.told() == []
    client.confirm()
    assert client.told() == [{'id': 2, 'subscribe': {}}]
    hub.redis.reply(published(b'broadcast:chat', b'Hello'), 0)
    assert client.told() == [{'push': {'channel': 'chat', 'pub': {'data': 'Hello'}}}]


def test_replies_of_one_turn_go_out_together(hub: Home, client: Client) -> None:
    client.connect()
    client.send({'id': 2, 'subscribe': {'channel': 'a'}}, {'id': 3, 'subscribe': {'channel': 'b'}})
    client.confirm()
    (frame,) = client.peer.messages()
    assert [json.loads(line)['id'] for line in str(frame).split('\n')] == [2, 3]


def test_nothing_overtakes_a_reply(hub: Home, client: Client) -> None:
    client.connect()
    client.send({'id': 2, 'subscribe': {'channel': 'chat'}})
    answers = [answer_to(command) for command in hub.redis.commands(0)]
    # All of it is read in one turn.
    hub.redis.reply(b''.join(answers) + published(b'broadcast:chat', b'Hello'), 0)
    hub.turn(2)
    client.connection.push('message', {'data': 1}, 'chat')
    client.connection.disconnect(DisconnectCode.STALE)
    hub.turn(2)
    *told, close = client.peer.frames()
    reply, publication, push = [json.loads(frame.payload) for frame in told]
    assert reply == {'id': 2, 'subscribe': {}}
    assert publication['push']['pub'] == {'data': 'Hello'}
    assert push['push']['message'] == {'data': 1}
    assert close.opcode == CLOSE


def test_commands_for_one_channel_are_done_in_their_order(client: Client) -> None:
    client.connect()
    client.send(
        {'id': 2, 'subscribe': {'channel': 'chat'}},
        {'id': 3, 'subscribe': {'channel': 'broadcast:chat'}},
        {'id': 4, 'unsubscribe': {'channel': 'chat'}},
        {'id': 5, 'ping': {}},
    )
    # What concerns no channel need not wait.
    assert client.told() == [{'id': 5, 'ping': {}}]
    client.confirm()
    first, second, third = client.told()
    assert first == {'id': 2, 'subscribe': {}}
    assert (second['id'], second['error']['code']) == (3, ErrorCode.ALREADY_SUBSCRIBED)
    assert third == {'id': 4, 'unsubscribe': {}}
    assert client.websocket.channels == ()
    assert len(client.connection.subscriptions) == 0


def test_who_is_not_subscribed_may_unsubscribe(client: Client) -> None:
    client.connect()
    assert client.ask('unsubscribe', channel='chat') == {}
    assert client.ask('sub_refresh', channel='chat', token='t')['code'] == ErrorCode.BAD_REQUEST


def test_what_the_policy_refuses_is_not_subscribed(hub: Home, project: Project) -> None:
    client = Client(hub, project).connect()
    for decision in (Grant(is_allowed=False), None):
        project.decision, project.grant = decision, Grant(is_allowed=False)
        answer = client.ask('subscribe', channel='chat')
        assert answer['code'] == ErrorCode.PERMISSION_DENIED
    assert client.ask('subscribe', channel='user:inbox')['code'] == ErrorCode.PERMISSION_DENIED
    assert client.ask('subscribe', channel='')['code'] == ErrorCode.BAD_REQUEST
    assert len(client.connection.subscriptions) == 0


@pytest.mark.parametrize('name', ['x' * 256, 'group:nonsense', 'ä' * 128])
def test_names_that_are_none_are_refused(client: Client, name: str) -> None:
    client.connect()
    assert client.ask('subscribe', channel=name)['code'] == ErrorCode.BAD_REQUEST
    assert client.ask('publish', channel=name, data=1)['code'] == ErrorCode.BAD_REQUEST


@pytest.mark.parametrize('name', ['a b', 'a\tb', '{a}', '*', 'a%3Ab', 'ä€😀', '"\\', "a'b", '\x00'])
def test_odd_names_are_told_as_they_were_given(hub: Home, client: Client, name: str) -> None:
    client.connect()
    assert client.subscribe(name) == {'id': 3, 'subscribe': {}}
    (channel,) = client.websocket.channels
    hub.redis.reply(published(channel.name, b'Hello'), 0)
    assert client.told() == [{'push': {'channel': name, 'pub': {'data': 'Hello'}}}]


def test_a_policy_that_raises_fails_closed_and_is_logged(
    hub: Home, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(hub, project).connect()
    project.decision, project.error = None, ValueError('a bug')
    assert client.ask('subscribe', channel='chat')['code'] == ErrorCode.INTERNAL
    assert 'a bug' in caplog.text
    assert client.websocket.channels == ()


def test_a_channel_that_was_refused_can_be_asked_for_again(hub: Home, project: Project) -> None:
    client = Client(hub, project).connect()
    project.decision = Grant(is_allowed=False)
    client.ask('subscribe', channel='chat')
    project.decision = Grant(is_allowed=True)
    assert 'subscribe' in client.subscribe('chat')


def test_channels_are_bounded(hub: Home, project: Project) -> None:
    client = Client(hub, project, max_channels=1).connect()
    client.subscribe('one')
    assert client.ask('subscribe', channel='two')['code'] == ErrorCode.LIMIT_EXCEEDED


def test_a_gap_ends_a_subscription_so_that_the_client_subscribes_again(
    hub: Home, client: Client
) -> None:
    client.connect().subscribe('chat')
    (channel,) = client.websocket.channels
    client.websocket.gap(channel, GAP)
    (push,) = client.told()
    assert push['push']['unsubscribe']['code'] == 2500
    assert client.websocket.channels == ()


def test_a_gap_in_a_channel_of_the_server_lets_the_client_connect_again(
    hub: Home, project: Project
) -> None:
    client = Client(hub, project, 'news')
    client.send({'id': 1, 'connect': {}})
    client.confirm()
    (channel,) = client.websocket.channels
    client.websocket.gap(channel, GAP)
    assert client.end() == (DisconnectCode.INSUFFICIENT_STATE, 'insufficient state')


def test_the_server_ends_a_subscription_by_its_full_name(client: Client) -> None:
    client.connect().subscribe('chat')
    client.websocket.unsubscribe('broadcast:chat')
    client.websocket.unsubscribe('broadcast:another')
    (push,) = client.told()
    assert push['push'] == {
        'channel': 'chat',
        'unsubscribe': {'code': 2000, 'reason': 'server unsubscribe'},
    }


def keep(hub: Home, message: bytes) -> None:
    """Let Redis confirm a subscription, and have a message kept in the channel."""
    hub.turn()
    for command in hub.redis.commands(0):
        hub.redis.reply(answer_to(command, message), 0)
    hub.turn(2)


def test_what_the_server_ends_while_it_is_joined_tells_nothing(hub: Home, client: Client) -> None:
    client.connect()
    client.send({'id': 2, 'subscribe': {'channel': 'chat'}})
    client.websocket.unsubscribe('broadcast:chat')
    keep(hub, b'private')
    hub.redis.reply(published(b'broadcast:chat', b'private too'), 0)
    (reply,) = client.told()
    assert (reply['id'], reply['error']['code']) == (2, ErrorCode.PERMISSION_DENIED)
    assert client.websocket.channels == ()
    assert len(client.connection.subscriptions) == 0


def test_what_the_server_ends_while_the_policy_is_asked_is_refused(hub: Home) -> None:
    class SlowProject(Project):
        def may(self, *arguments: Any) -> Grant:
            asking.websocket.unsubscribe('broadcast:chat')
            return self.grant

    project = SlowProject()
    asking = Client(hub, project).connect()
    project.decision = None
    assert asking.ask('subscribe', channel='chat')['code'] == ErrorCode.PERMISSION_DENIED
    assert asking.websocket.channels == ()


def test_what_the_server_ends_while_it_subscribes_the_client_is_left_out(
    hub: Home, project: Project
) -> None:
    client = Client(hub, project, 'news')
    client.send({'id': 1, 'connect': {}})
    client.websocket.unsubscribe('broadcast:news')
    keep(hub, b'private')
    hub.redis.reply(published(b'broadcast:news', b'private too'), 0)
    (reply,) = client.told()
    assert 'subs' not in reply['connect']
    assert client.websocket.channels == ()


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


# Commands


def test_several_commands_in_a_frame_are_answered_in_one(client: Client) -> None:
    client.connect()
    client.send(*({'id': number, 'ping': {}} for number in range(2, 12)))
    (frame,) = client.peer.messages()
    assert str(frame).count('\n') == 9


def test_a_long_frame_is_taken_a_little_in_each_turn(client: Client) -> None:
    client.connect()
    numbers = range(2, 2 + 3 * COMMANDS_AT_ONCE)
    client.send(*({'id': number, 'ping': {}} for number in numbers))
    for _ in range(4):
        client.hub.turn()
    frames = [str(frame).split('\n') for frame in client.peer.messages()]
    assert all(len(lines) <= COMMANDS_AT_ONCE for lines in frames)
    assert [json.loads(line)['id'] for lines in frames for line in lines] == list(numbers)
    # It is read again.
    assert client.ask('ping') == {}


def test_too_many_commands_in_a_second_are_refused(
    hub: Home, project: Project, clock: Clock
) -> None:
    client = Client(hub, project, max_commands_per_second=3.0).connect()
    client.send(*({'id': number, 'ping': {}} for number in range(2, 6)))
    assert [reply.get('error', {}).get('code') for reply in client.told()] == [None, None, 111, 111]
    clock.advance(1)
    assert client.ask('ping') == {}


@pytest.mark.parametrize(
    'frame', ['nonsense', '[]', '{"id": -1, "ping": {}}', '{"id": 2, "ping": {}}\n{'], ids=repr
)
def test_a_malformed_frame_ends_the_connection(client: Client, frame: str) -> None:
    client.connect()
    client.peer.send(frame)
    assert client.end()[0] == DisconnectCode.BAD_REQUEST


def test_an_unknown_command_is_answered(client: Client) -> None:
    client.connect()
    client.send({'id': 2, 'dance': {}})
    (reply,) = client.told()
    assert reply['error']['code'] == ErrorCode.METHOD_NOT_FOUND


def test_code_of_the_project_answers_or_fails(
    hub: Home, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(hub, project).connect()
    assert client.ask('rpc', method='vote', data=[1]) == {'data': [1]}
    assert project.called == [('vote', [1])]
    project.error = ClientError(441, 'no such poll')
    answer = client.ask('rpc', method='vote')
    assert (answer['code'], answer['message']) == (441, 'no such poll')
    assert 'no such poll' not in caplog.text
    project.error = ValueError('a bug')
    answer = client.ask('rpc', method='vote')
    assert answer == {'code': 100, 'message': 'internal server error', 'temporary': True}
    assert 'a bug' in caplog.text


class Slow:
    """Hold back the ends of calls in the pool."""

    def __init__(self, hub: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends: list[Callable[[], object]] = []

        def submit(done: Any, function: Any, *args: Any) -> None:
            self.ends.append(lambda: done(function(*args), None))

        monkeypatch.setattr(hub.loop.driver, 'submit', submit)


def test_calls_of_a_connection_are_bounded_and_what_follows_waits(
    hub: Home, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.connect()
    slow = Slow(hub, monkeypatch)
    client.send(*({'id': n, 'rpc': {'method': 'slow', 'data': n}} for n in range(2, 8)))
    client.send({'id': 8, 'ping': {}})
    assert len(slow.ends) == 4
    assert client.told() == []
    slow.ends.pop()()
    assert [reply['id'] for reply in client.told()] == [5]
    while slow.ends:
        slow.ends.pop(0)()
        hub.turn(2)
    assert {reply['id'] for reply in client.told()} == {2, 3, 4, 6, 7, 8}
    assert client.connection.calls == 0


def test_a_call_that_takes_too_long_is_answered_once(
    hub: Home,
    client: Client,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.connect()
    slow = Slow(hub, monkeypatch)
    client.send({'id': 2, 'rpc': {'method': 'slow'}})
    advance(hub, clock, 10.1)
    (reply,) = client.told()
    assert reply['error']['code'] == ErrorCode.INTERNAL
    assert 'took more than 10 seconds: an rpc' in caplog.text
    assert client.connection.calls == 1
    slow.ends.pop()()
    assert client.told() == []
    assert client.connection.calls == 0


def test_what_ends_after_the_connection_changes_nothing(
    hub: Home, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(hub, project).connect()
    project.decision = None
    slow = Slow(hub, monkeypatch)
    client.send({'id': 2, 'subscribe': {'channel': 'chat'}})
    client.websocket.lost()
    slow.ends.pop()()
    hub.turn(2)
    assert client.websocket.channels == ()
    assert len(client.connection.subscriptions) == 0
    assert client.connection.calls == 0


def test_publications_of_a_client_keep_their_order(
    hub: Home, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(hub, project).connect()
    project.decision = None
    slow = Slow(hub, monkeypatch)
    client.send(*({'id': n, 'publish': {'channel': 'chat', 'data': n}} for n in range(2, 5)))
    # The policy is asked for the next one when the one before is on its way.
    assert len(slow.ends) == 1
    while slow.ends:
        slow.ends.pop()()
        hub.turn(2)
    sent = [command[-1] for command in hub.redis.commands(1) if command[0] == b'PUBLISH']
    assert sent == [b'2', b'3', b'4']


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

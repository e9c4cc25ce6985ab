"""Subscriptions of the client protocol, with a scripted Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hub.clients.rig import Client, Project
from tests.hub.rig import Home, answer_to, published
from tests.websocket_client import CLOSE
from ws4redis.broker.history import Position
from ws4redis.hub.channel import Gap, Outcome
from ws4redis.hub.clients.project import Grant
from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode

GAP = Gap(Outcome.TRIMMED, Position('epoch', 7), None)


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


def test_what_is_long_does_not_share_its_frame(hub: Home, client: Client) -> None:
    client.connect()
    texts = [letter * 40_000 for letter in 'abc']
    for text in texts:
        client.connection.push('message', {'data': text}, 'chat')
    hub.turn()
    frames = client.peer.messages()
    told = [json.loads(str(frame))['push']['message']['data'] for frame in frames]
    assert told == texts


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


def test_who_comes_back_to_a_channel_gets_nothing_of_it_before_the_reply(
    hub: Home, client: Client
) -> None:
    client.connect()
    client.send(
        {'id': 2, 'subscribe': {'channel': 'chat'}},
        {'id': 3, 'unsubscribe': {'channel': 'chat'}},
        {'id': 4, 'subscribe': {'channel': 'chat'}},
    )
    client.confirm()
    hub.redis.reply(published(b'broadcast:chat', b'Hello'), 0)
    assert client.told() == [{'id': 2, 'subscribe': {}}, {'id': 3, 'unsubscribe': {}}]
    client.confirm()
    assert client.told() == [{'id': 4, 'subscribe': {}}]


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


def test_what_waits_for_a_subscription_that_fails_joins_the_channel_anew(
    hub: Home, client: Client
) -> None:
    client.connect()
    client.send(
        {'id': 2, 'subscribe': {'channel': 'chat'}},
        {'id': 3, 'unsubscribe': {'channel': 'chat'}},
        {'id': 4, 'subscribe': {'channel': 'chat'}},
    )
    client.websocket.unsubscribe('broadcast:chat')
    client.confirm()
    failed, left = client.told()
    assert (failed['id'], failed['error']['code']) == (2, ErrorCode.PERMISSION_DENIED)
    assert left == {'id': 3, 'unsubscribe': {}}
    client.confirm()
    assert client.told() == [{'id': 4, 'subscribe': {}}]
    hub.redis.reply(published(b'broadcast:chat', b'Hello'), 0)
    assert client.told() == [{'push': {'channel': 'chat', 'pub': {'data': 'Hello'}}}]


def test_nobody_is_told_to_be_subscribed_who_has_just_left_since_redis_is_away(
    hub: Home, client: Client
) -> None:
    client.connect()
    hub.redis.refuses = True
    hub.redis.hang_up(0)
    hub.turn(2)
    client.send(
        {'id': 2, 'subscribe': {'channel': 'chat'}},
        {'id': 3, 'unsubscribe': {'channel': 'chat'}},
        {'id': 4, 'subscribe': {'channel': 'chat'}},
    )
    first, left, second = client.told()
    assert left == {'id': 3, 'unsubscribe': {}}
    assert [first['error']['code'], second['error']['code']] == [ErrorCode.INTERNAL] * 2

"""Commands of the client protocol: their order, their bounds, their answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.hub.clients.rig import Client, Project, advance
from tests.hub.rig import Clock, Home
from ws4redis.exceptions import ClientError
from ws4redis.hub.clients.connection import COMMANDS_AT_ONCE
from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode


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

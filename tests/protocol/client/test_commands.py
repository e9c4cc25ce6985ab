from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.exceptions import MalformedCommand
from ws4redis.protocol.client.commands import (
    Command,
    CommandLimits,
    ConnectRequest,
    HistoryRequest,
    PublishRequest,
    StreamPosition,
    SubscribeRequest,
    decode_commands,
)

LIMITS = CommandLimits(max_commands_per_frame=3, max_server_subscriptions=2)


def decode(*messages: Any) -> list[Command]:
    frame = b'\n'.join(json.dumps(message).encode() for message in messages)
    return list(decode_commands(frame, LIMITS))


def test_a_frame_holds_several_commands_in_their_order() -> None:
    commands = decode({'id': 1, 'ping': {}}, {'id': 2, 'rpc': {'method': 'm', 'data': [1]}})
    assert [(command.id, command.method) for command in commands] == [(1, 'ping'), (2, 'rpc')]
    assert commands[1].request == ('m', [1])


def test_absent_and_null_fields_have_their_defaults_and_unknown_ones_are_passed_over() -> None:
    (command,) = decode({'id': 1, 'subscribe': {'channel': 'a', 'token': None, 'flag': 3}})
    assert command.request == SubscribeRequest(
        'a', '', False, '', 0, False, False, False, None, True
    )


def test_a_connect_names_the_subscriptions_to_recover() -> None:
    subs = {'a': {'recover': True, 'epoch': 'e', 'offset': '7'}}
    (command,) = decode({'id': 1, 'connect': {'subs': subs, 'name': 'js'}})
    assert isinstance(command.request, ConnectRequest)
    assert command.request.subs['a'].position == ('e', 7)
    assert command.request.name == 'js'


def test_a_history_is_asked_for_with_and_without_a_position() -> None:
    first, second = decode(
        {'id': 1, 'history': {'channel': 'a', 'limit': -1}},
        {'id': 2, 'history': {'channel': 'a', 'since': {'epoch': 'e'}, 'reverse': True}},
    )
    assert first.request == HistoryRequest('a', -1, None, False)
    assert second.request == HistoryRequest('a', 0, StreamPosition('e', 0), True)


def test_an_empty_object_is_a_pong() -> None:
    assert [command.is_pong for command in decode({}, {'id': 3})] == [True, False]


def test_a_send_needs_no_id_and_a_method_that_nobody_knows_has_one() -> None:
    sent, unknown = decode({'send': {'data': 1}}, {'id': 4, 'teleport': {}})
    assert (sent.id, sent.method) == (0, 'send')
    assert (unknown.id, unknown.method) == (4, None)


def test_what_is_published_may_be_any_value() -> None:
    values: list[Any] = ['text', 1, None, [], {'a': None}]
    for value in values:
        (command,) = decode({'id': 1, 'publish': {'channel': 'a', 'data': value}})
        assert command.request == PublishRequest('a', value, '')


@pytest.mark.parametrize(
    'frame',
    [
        b'',
        b'\n\n',
        b'nonsense',
        b'[]',
        b'1',
        b'{"id":1,"ping":1}',
        b'{"id":-1,"ping":{}}',
        b'{"id":4294967296,"ping":{}}',
        b'{"id":true,"ping":{}}',
        b'{"ping":{}}',
        b'{"teleport":{}}',
        b'{"id":1,"subscribe":{"channel":1}}',
        b'{"id":1,"subscribe":{"channel":"a","recover":1}}',
        b'{"id":1,"subscribe":{"channel":"a","offset":-1}}',
        b'{"id":1,"subscribe":{"channel":"a","offset":1.5}}',
        b'{"id":1,"subscribe":{"channel":"\\ud800"}}',
        b'{"id":1,"connect":{"subs":[]}}',
        b'{"id":1,"connect":{"subs":{"a":1}}}',
        b'{"id":1,"connect":{"subs":{"a":{},"b":{},"c":{}}}}',
        b'{"id":1,"history":{"channel":"a","since":1}}',
        b'{"id":1,"publish":{"channel":"a","data":NaN}}',
        b'{"id":1,"rpc":{"data":' + b'[' * 100_000,
        b'{"id":1,"ping":{}}\n' * 4,
        b'{"id":1,"ping":{}}\n{"id":',
        b'\xff',
    ],
)
def test_what_cannot_be_understood_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedCommand) as caught:
        list(decode_commands(frame, LIMITS))
    assert caught.value.close_code == 3501


def test_commands_before_a_malformed_one_are_given_out() -> None:
    commands = decode_commands(b'{"id":1,"ping":{}}\nnonsense', LIMITS)
    assert next(commands).method == 'ping'
    with pytest.raises(MalformedCommand):
        next(commands)


@given(st.binary(max_size=300))
def test_no_bytes_cause_another_error(frame: bytes) -> None:
    try:
        list(decode_commands(frame, LIMITS))
    except MalformedCommand:
        pass


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
METHODS = st.sampled_from(
    [
        'connect',
        'subscribe',
        'unsubscribe',
        'publish',
        'presence',
        'presence_stats',
        'history',
        'ping',
        'send',
        'rpc',
        'refresh',
        'sub_refresh',
        'other',
    ]
)
FIELDS = st.sampled_from(
    ['channel', 'token', 'recover', 'epoch', 'offset', 'subs', 'limit', 'since', 'reverse', 'data']
)


@given(VALUES, METHODS, st.dictionaries(FIELDS, VALUES, max_size=4) | VALUES)
def test_no_values_cause_another_error(number: Any, method: str, request: Any) -> None:
    frame = json.dumps({'id': number, method: request}).encode()
    try:
        commands = list(decode_commands(frame, LIMITS))
    except MalformedCommand:
        return
    assert len(commands) == 1
    assert commands[0].request is None or commands[0].method == method

from __future__ import annotations

import json

import pytest

from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode, UnsubscribeCode, comes_back
from ws4redis.protocol.client.replies import (
    MAX_SHARED_CHARACTERS,
    Raw,
    encode_error_code,
    encode_frame,
    encode_frames,
    encode_publication,
    encode_publication_push,
    encode_push,
    encode_reply,
    encode_unsubscribe,
)


def test_a_reply_bears_the_number_and_the_method_of_its_command() -> None:
    reply = encode_reply(7, 'rpc', {'data': Raw('{"a": 1}'), 'more': [Raw('2'), 'x']})
    assert reply == '{"id":7,"rpc":{"data":{"a": 1},"more":[2,"x"]}}'


def test_an_error_says_whether_trying_again_makes_sense() -> None:
    assert json.loads(encode_error_code(7, ErrorCode.INTERNAL)) == {
        'id': 7,
        'error': {'code': 100, 'message': 'internal server error', 'temporary': True},
    }
    assert json.loads(encode_error_code(7, ErrorCode.PERMISSION_DENIED)) == {
        'id': 7,
        'error': {'code': 103, 'message': 'permission denied'},
    }


def test_a_publication_has_an_offset_only_in_a_history() -> None:
    push = json.loads(encode_publication_push('a "b"', encode_publication('[1]', 3)))
    assert push == {'push': {'channel': 'a "b"', 'pub': {'data': [1], 'offset': 3}}}
    assert encode_publication('"x"', None) == '{"data":"x"}'


def test_other_pushes_name_their_kind() -> None:
    assert json.loads(encode_push('message', {'data': Raw('1')})) == {
        'push': {'message': {'data': 1}}
    }
    assert json.loads(encode_unsubscribe('a', UnsubscribeCode.INSUFFICIENT_STATE)) == {
        'push': {'channel': 'a', 'unsubscribe': {'code': 2500, 'reason': 'insufficient state'}}
    }


def test_several_messages_stand_on_a_line_each() -> None:
    assert encode_frame(['{}', '{"id":1}']) == b'{}\n{"id":1}'


@pytest.mark.parametrize(
    ('code', 'is_back'),
    [
        (1006, True),
        (DisconnectCode.SLOW, True),
        (DisconnectCode.BAD_REQUEST, False),
        (DisconnectCode.STALE, False),
        (3999, False),
        (4000, True),
        (4500, False),
        (5000, True),
    ],
)
def test_the_code_says_whether_a_client_comes_back(code: int, is_back: bool) -> None:
    assert comes_back(code) is is_back


def test_every_code_has_words() -> None:
    for code in (*DisconnectCode, *UnsubscribeCode):
        assert 0 < len(code.reason.encode()) <= 123
    for error in ErrorCode:
        assert error.message


def test_short_messages_share_a_frame_and_long_ones_have_their_own() -> None:
    half, more = 'a' * (MAX_SHARED_CHARACTERS // 2), 'b' * (MAX_SHARED_CHARACTERS + 1)
    messages = ['1', '2', half, half, more, more, '3', '4']
    contents = [content.decode().split('\n') for content in encode_frames(messages)]
    assert contents == [['1', '2', half], [half], [more], [more], ['3', '4']]

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ws4redis.exceptions import HandshakeError
from ws4redis.protocol.handshake import (
    accept_key,
    check_upgrade,
    choose_subprotocol,
    response_headers,
)

KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
HEADERS = {
    'host': 'example.com',
    'upgrade': 'websocket',
    'connection': 'Upgrade',
    'sec-websocket-key': KEY,
    'sec-websocket-version': '13',
}


def refused(
    method: str = 'GET', *, changes: Mapping[str, str | None] | None = None
) -> HandshakeError:
    changed: dict[str, str | None] = {**HEADERS, **(changes or {})}
    headers = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(HandshakeError) as caught:
        check_upgrade(method, headers)
    return caught.value


def test_the_handshake_of_the_rfc_is_accepted() -> None:
    check_upgrade('GET', HEADERS)


@pytest.mark.parametrize(
    'changes',
    [
        {'connection': 'keep-alive, Upgrade'},
        {'connection': 'UPGRADE'},
        {'upgrade': 'WebSocket'},
        {'upgrade': 'h2c, websocket'},
        {'sec-websocket-key': f' {KEY} '},
        {'sec-websocket-version': ' 13 '},
    ],
)
def test_header_values_are_lists_without_case(changes: dict[str, str]) -> None:
    check_upgrade('GET', HEADERS | changes)


@pytest.mark.parametrize(
    'changes',
    [
        {'upgrade': None},
        {'upgrade': 'h2c'},
        {'connection': None},
        {'connection': 'close'},
        {'connection': 'keep-alive'},
    ],
)
def test_a_request_without_upgrade_is_told_to_upgrade(changes: dict[str, str | None]) -> None:
    error = refused(changes=changes)
    assert error.status == 400
    assert 'upgrade to a websocket' in error.body


@pytest.mark.parametrize('http_version', ['HTTP/1.0', 'HTTP/0.9'])
def test_http_without_upgrades_is_told_to_use_1_1(http_version: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        check_upgrade('GET', HEADERS, http_version=http_version)
    assert caught.value.status == 400
    assert 'proxy_http_version 1.1' in caught.value.body


@pytest.mark.parametrize('character', ['\n', '\r', '\0'])
@pytest.mark.parametrize('name', ['sec-websocket-extensions', 'sec-websocket-key', 'x-anything'])
def test_a_line_break_in_a_header_is_refused(name: str, character: str) -> None:
    error = refused(changes={name: f'{HEADERS.get(name, "")}{character}'})
    assert error.status == 400
    assert 'line break' in error.body


@pytest.mark.parametrize('method', ['POST', 'PUT', 'HEAD', 'OPTIONS', 'DELETE'])
def test_only_get_upgrades(method: str) -> None:
    error = refused(method)
    assert error.status == 400
    assert 'upgrade to a websocket' in error.body


@pytest.mark.parametrize(
    'key',
    [
        None,
        'short',
        'dGhlIHNhbXBsZSBub25jZQ',
        'dGhlIHNhbXBsZSBub25jZWU=',
        'dGhlIHNhbXBsZSBub25jZ===',
        '!GhlIHNhbXBsZSBub25jZQ==',
        f'{KEY},{KEY}',
        'é' * 24,
    ],
)
def test_a_missing_or_malformed_key_is_refused(key: str | None) -> None:
    assert refused(changes={'sec-websocket-key': key}).status == 400


@pytest.mark.parametrize('version', [None, '8', '12', '14', '13, 8', 'thirteen'])
def test_another_version_is_told_which_one_is_spoken(version: str | None) -> None:
    error = refused(changes={'sec-websocket-version': version})
    assert error.status == 426
    assert error.headers == {'Sec-WebSocket-Version': '13'}


def test_headers_without_end_are_refused() -> None:
    with pytest.raises(HandshakeError) as caught:
        check_upgrade('GET', HEADERS | {'cookie': 'x' * 40000})
    assert caught.value.status == 431
    check_upgrade('GET', HEADERS | {'cookie': 'x' * 40000}, max_header_bytes=50000)


def test_the_key_of_the_rfc_is_accepted_as_there() -> None:
    assert accept_key(KEY) == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='


def test_the_first_offered_subprotocol_that_is_known_is_chosen() -> None:
    assert choose_subprotocol('chat.v3, chat.v2 ,chat.v1', ['chat.v1', 'chat.v2']) == 'chat.v2'


@pytest.mark.parametrize('offered', ['', 'other', ' , ,', 'CHAT', 'chat v1'])
def test_without_a_known_subprotocol_the_handshake_goes_on_without(offered: str) -> None:
    assert choose_subprotocol(offered, ['chat', 'v1']) is None


@pytest.mark.parametrize(
    ('offered', 'chosen'),
    [
        ('chat', 'chat'),
        (' , v2,chat', 'v2'),
        ('', None),
        ('two words, chat', 'chat'),
        ('centrifuge-json', None),
        ('centrifuge-json, chat', 'chat'),
    ],
)
def test_where_any_name_is_supported_the_first_one_is_chosen(
    offered: str, chosen: str | None
) -> None:
    assert choose_subprotocol(offered, None) == chosen


@pytest.mark.parametrize('offered', ['chat\n', 'chat\r\nSet-Cookie: x=1', 'ch\nat', 'chät'])
def test_no_name_that_is_chosen_can_add_a_header(offered: str) -> None:
    assert choose_subprotocol(offered, None) in {None, 'chat'}


def test_nothing_is_chosen_where_nothing_is_supported() -> None:
    assert choose_subprotocol('chat', ()) is None


def test_the_response_has_what_the_rfc_demands() -> None:
    assert response_headers(KEY) == [
        ('Upgrade', 'websocket'),
        ('Connection', 'Upgrade'),
        ('Sec-WebSocket-Accept', 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='),
    ]


def test_the_response_names_subprotocol_and_extensions_when_there_are_any() -> None:
    headers = dict(response_headers(KEY, subprotocol='chat', extensions='permessage-deflate'))
    assert headers['Sec-WebSocket-Protocol'] == 'chat'
    assert headers['Sec-WebSocket-Extensions'] == 'permessage-deflate'

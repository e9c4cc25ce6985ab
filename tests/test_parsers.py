"""Every parser of ours comes to an end, whatever it is given, and raises only what it promises."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.core.exceptions import SuspiciousOperation
from django.test import RequestFactory, override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hub.rig import Home
from tests.protocol.client_frames import client_frame
from tests.step_limit import TooManyStepsError, step_limit
from ws4redis.broker.channels import facility_of, options_of
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.connection_limits import client_address
from ws4redis.handshake.origins import is_origin_allowed
from ws4redis.hub.options import HubOptions
from ws4redis.protocol.connection import ServerConnection
from ws4redis.protocol.extensions import Compression, negotiate
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.handshake import check_upgrade, choose_subprotocol
from ws4redis.protocol.limits import Limits

#: For each character of the input, and once.
LINES_PER_CHARACTER = 40
LINES = 400

#: What the grammars are made of, and what ends a line where a parser may not expect it.
PIECES = st.sampled_from(
    [*' \t\n\r\0\x0b\x1c\x85\u2028,;=:/"\\&%?#@[]*+-._', 'a', '15', 'é', '%0A', '://', 'user']
)
TEXTS = st.lists(PIECES | st.characters(), max_size=60).map(''.join)

thorough = settings(max_examples=200, deadline=None)


def allowance(text: str | bytes) -> int:
    return LINES + LINES_PER_CHARACTER * len(text)


@thorough
@given(TEXTS)
def test_extensions(header: str) -> None:
    with step_limit(allowance(header)), suppress(HandshakeError):
        negotiate(header, Compression(enabled=True))


@thorough
@given(TEXTS)
def test_extensions_behind_a_good_beginning(header: str) -> None:
    header = f'permessage-deflate; client_max_window_bits{header}'
    with step_limit(allowance(header)), suppress(HandshakeError):
        negotiate(header, Compression(enabled=True))


@thorough
@given(TEXTS)
def test_subprotocols(header: str) -> None:
    with step_limit(allowance(header)):
        assert choose_subprotocol(header, ['a', 'user']) in {None, 'a', 'user'}


@thorough
@given(
    st.dictionaries(
        st.sampled_from(['upgrade', 'connection', 'sec-websocket-version', 'sec-websocket-key']),
        TEXTS | st.sampled_from(['websocket', 'upgrade', '13']),
    )
)
def test_the_other_headers_of_a_handshake(headers: dict[str, str]) -> None:
    with step_limit(allowance(''.join(headers.values()))), suppress(HandshakeError):
        check_upgrade('GET', headers)


@thorough
@given(TEXTS)
def test_options_and_facilities_of_urls(text: str) -> None:
    with step_limit(2 * allowance(text)):
        options = options_of(text)
        assert facility_of(f'/ws/{text}', '/ws/') == text
    assert len(options) == len(set(options))


@thorough
@given(origin=TEXTS, entry=TEXTS)
def test_origins(origin: str, entry: str) -> None:
    request = RequestFactory().get('/ws/x', headers={'origin': origin})
    with (
        override_settings(WS4REDIS_ALLOWED_ORIGINS=[entry], ALLOWED_HOSTS=['testserver']),
        step_limit(allowance(origin + entry)),
        suppress(SuspiciousOperation),
    ):
        is_origin_allowed(request)


@thorough
@given(TEXTS)
def test_addresses_of_clients(header: str) -> None:
    with (
        override_settings(WS4REDIS_CLIENT_ADDRESS_HEADER='X-Forwarded-For'),
        step_limit(allowance(header)),
    ):
        client_address({'HTTP_X_FORWARDED_FOR': header, 'REMOTE_ADDR': '192.0.2.1'})


FRAMES = st.builds(
    client_frame,
    st.sampled_from(list(Opcode)),
    st.binary(max_size=20),
    final=st.booleans(),
    mask=st.binary(min_size=4, max_size=4),
)


@thorough
@given(st.lists(st.binary(max_size=20) | FRAMES, max_size=20), st.integers(1, 30))
def test_frames(pieces: list[bytes], read_bytes: int) -> None:
    _, deflate = negotiate('permessage-deflate', Compression(enabled=True))
    connection = ServerConnection(Limits(max_message_size=100), deflate=deflate)
    data = b''.join(pieces)
    # Each read may look at the beginning of a frame once more.
    with step_limit(allowance(data) + (len(data) // read_bytes + 1) * 100):
        for position in range(0, len(data), read_bytes):
            connection.receive_data(data[position : position + read_bytes])


REPLIES = st.sampled_from(
    [
        b'_\r\n',
        b'$-1\r\n',
        b'$4\r\nkept\r\n',
        b'$4\r\nkept\r',
        b'+PONG\r\n',
        b'-ERR no\r\n',
        b'-LOADING soon\r\n',
        b':1\r\n',
        b'*0\r\n',
        b'*2\r\n:1\r\n',
        b'%1\r\n+a\r\n',
        b'>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n',
        b'>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n',
        b'>3\r\n$7\r\nmessage\r\n$1\r\n',
        b'>2\r\n$7\r\nmessage\r\n$1\r\na\r\n',
        b'>1\r\n$9\r\nsubscribe\r\n',
        b'>0\r\n',
        b'\r\n',
        b'$99999999\r\n',
    ]
)


@pytest.mark.parametrize('number', [0, 1], ids=['subscriptions', 'commands'])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(replies=st.lists(REPLIES | st.binary(max_size=12), max_size=12), cut=st.integers(0, 40))
def test_replies_of_redis_whole_or_half_read(number: int, replies: list[bytes], cut: int) -> None:
    data = b''.join(replies)
    with Home(options=HubOptions(ping_interval_seconds=None)) as hub:
        hub.turn(2)
        peer = hub.peer()
        hub.join_names(peer.websocket, ['a'], lambda: None)
        hub.publications.publish(peer.websocket, ('a',), b'hello')
        hub.turn()
        with step_limit(20_000), suppress(BrokenPipeError, ConnectionResetError):
            for part in (data[:cut], data[cut:]):
                hub.redis.reply(part, number)
                hub.turn(3)
        # Whatever Redis says, the loop turns, and a bystander is served.
        bystander = hub.peer()
        bystander.send('hello')
        assert bystander.receiver.messages == [(Opcode.TEXT, b'hello')]


def test_the_limit_of_steps_ends_an_endless_loop() -> None:
    namespace = {'__name__': 'ws4redis.endless'}
    exec('def turn():\n    while True:\n        pass', namespace)
    with pytest.raises(TooManyStepsError), step_limit(1000):
        namespace['turn']()  # type: ignore[operator]

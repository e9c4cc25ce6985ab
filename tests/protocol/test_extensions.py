from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.exceptions import HandshakeError
from ws4redis.protocol.extensions import (
    Compression,
    NegotiatedDeflate,
    negotiate,
    parse_extensions,
)

ON = Compression(enabled=True)
BOTH_WITHOUT_TAKEOVER = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover'


def accepted(offered: str, config: Compression = ON) -> tuple[str, NegotiatedDeflate]:
    header, negotiated = negotiate(offered, config)
    assert header is not None
    assert negotiated is not None
    return header, negotiated


@pytest.mark.parametrize(
    'offered',
    [
        'permessage-deflate',
        'permessage-deflate; server_no_context_takeover',
        'permessage-deflate; client_no_context_takeover',
        'permessage-deflate; client_no_context_takeover; server_no_context_takeover',
        'permessage-deflate; client_max_window_bits',
        'permessage-deflate; client_max_window_bits=8',
        'permessage-deflate; client_max_window_bits="15"',
        ' permessage-deflate ;client_max_window_bits = 10 ',
    ],
)
def test_no_context_is_ever_taken_over(offered: str) -> None:
    header, negotiated = accepted(offered)
    assert header == BOTH_WITHOUT_TAKEOVER
    assert negotiated.wire.window_bits == 15


@pytest.mark.parametrize('bits', range(9, 16))
def test_a_window_for_the_server_is_confirmed_and_kept_to(bits: int) -> None:
    header, negotiated = accepted(f'permessage-deflate; server_max_window_bits={bits}')
    used = negotiated.wire.window_bits
    assert header == f'{BOTH_WITHOUT_TAKEOVER}; server_max_window_bits={used}'
    assert used <= bits


def test_clients_cannot_choose_among_more_than_two_windows() -> None:
    offers = [f'permessage-deflate; server_max_window_bits={bits}' for bits in range(9, 16)]
    wires = {accepted(offer)[1].wire for offer in ('permessage-deflate', *offers)}
    assert {wire.window_bits for wire in wires} == {9, 15}
    assert len(wires) == 2


def test_a_quoted_window_means_the_same() -> None:
    assert accepted('permessage-deflate; server_max_window_bits="1\\0"') == accepted(
        'permessage-deflate; server_max_window_bits=10'
    )


def test_our_own_window_bounds_the_offered_one() -> None:
    config = Compression(enabled=True, window_bits=11)
    header, negotiated = accepted('permessage-deflate; server_max_window_bits=14', config)
    assert header.endswith('; server_max_window_bits=11')
    assert negotiated.wire.window_bits == 11
    header, negotiated = accepted('permessage-deflate', config)
    assert header == BOTH_WITHOUT_TAKEOVER
    assert negotiated.wire.window_bits == 11


@pytest.mark.parametrize(
    'parameters',
    [
        'server_max_window_bits',
        'server_max_window_bits=7',
        'server_max_window_bits=16',
        'server_max_window_bits=010',
        'server_max_window_bits=ten',
        # Legal, but zlib has no such window.
        'server_max_window_bits=8',
        'client_max_window_bits=7',
        'client_max_window_bits=16',
        'client_max_window_bits=09',
        'server_no_context_takeover=1',
        'client_no_context_takeover=true',
        'server_no_context_takeover; server_no_context_takeover',
        'server_max_window_bits=10; server_max_window_bits=10',
        'client_max_window_bits; client_max_window_bits=10',
        'unknown',
        'unknown=1',
        'Server_no_context_takeover',
    ],
)
def test_offers_with_illegal_duplicate_or_unknown_parameters_are_declined(parameters: str) -> None:
    assert negotiate(f'permessage-deflate; {parameters}', ON) == (None, None)


def test_the_first_acceptable_offer_is_taken() -> None:
    header, negotiated = accepted(
        'x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=8, '
        'permessage-deflate; server_max_window_bits=10, permessage-deflate'
    )
    assert header.endswith('server_max_window_bits=9')
    assert negotiated.wire.window_bits == 9


@pytest.mark.parametrize('offered', ['', ' ', ',', 'permessage-bzip2', 'foo; bar=1, baz'])
def test_without_an_offer_of_deflate_nothing_is_agreed_on(offered: str) -> None:
    assert negotiate(offered, ON) == (None, None)


def test_nothing_is_agreed_on_when_compression_is_off() -> None:
    assert negotiate('permessage-deflate', Compression()) == (None, None)


@pytest.mark.parametrize(
    'offered',
    [
        'permessage-deflate;',
        'permessage-deflate; =1',
        'permessage-deflate; a=',
        'permessage-deflate; a="1',
        'permessage-deflate; a=""',
        'permessage-deflate; a="1 0"',
        'permessage deflate',
        '"permessage-deflate"',
        'a; b=1 2',
        'a/b',
        'ä',
        '\n',
        'a\n',
        'a; b\n',
        'a; b="1\n"',
        'a, \n',
    ],
)
@pytest.mark.parametrize('config', [ON, Compression()])
def test_a_malformed_header_is_refused(offered: str, config: Compression) -> None:
    with pytest.raises(HandshakeError) as caught:
        negotiate(offered, config)
    assert caught.value.status == 400


def test_names_and_parameters_are_parsed_in_order() -> None:
    assert parse_extensions('a; b; c=1; d="2" , ,e') == [
        ('a', [('b', None), ('c', '1'), ('d', '2')]),
        ('e', []),
    ]


def test_equal_parameters_share_one_object() -> None:
    _, first = accepted('permessage-deflate; server_max_window_bits=12')
    _, second = accepted('permessage-deflate; server_max_window_bits="12"; client_max_window_bits')
    _, other = accepted('permessage-deflate')
    assert first is second
    assert first.wire is second.wire
    assert other is not first


def test_what_was_agreed_on_cannot_be_changed() -> None:
    _, negotiated = accepted('permessage-deflate')
    with pytest.raises(AttributeError):
        negotiated.wire = None  # type: ignore[assignment, misc]


@given(st.text(alphabet='permessage-deflate; ="\\,abc_019\t\x00é', max_size=60))
def test_any_header_is_answered_or_refused(offered: str) -> None:
    try:
        header, negotiated = negotiate(offered, ON)
    except HandshakeError:
        return
    assert (header is None) == (negotiated is None)


def test_a_hostile_header_is_parsed_in_linear_time() -> None:
    began = time.process_time()
    for offered in ('a; b="' + '\\"' * 16000, 'a;b=' * 8000, ' ' * 32000 + ';', ', ' * 16000):
        try:
            negotiate(offered, ON)
        except HandshakeError:
            pass
    assert time.process_time() - began < 2


# The setting


def test_true_and_false_switch_compression() -> None:
    assert Compression.from_setting(True) == Compression(enabled=True)
    assert Compression.from_setting(False) == Compression(enabled=False)
    assert Compression.from_setting(None) == Compression(enabled=False)


def test_a_dict_enables_and_adjusts_it() -> None:
    setting = {'minimum_size': 1000, 'level': 9, 'window_bits': 12}
    assert Compression.from_setting(setting) == Compression(
        enabled=True, minimum_size=1000, level=9, window_bits=12
    )
    assert Compression.from_setting({}) == Compression(enabled=True)


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ('yes', 'True, False or a dict'),
        (1, 'True, False or a dict'),
        ({'size': 1}, "unknown keys 'size'"),
        ({1: 1}, 'unknown keys 1'),
        ({'level': 0}, 'integer, 1 to 9, not 0'),
        ({'level': 10}, 'integer, 1 to 9, not 10'),
        ({'level': True}, 'integer, 1 to 9, not True'),
        ({'level': '6'}, "integer, 1 to 9, not '6'"),
        ({'minimum_size': -1}, 'integer, 0 or more, not -1'),
        ({'minimum_size': None}, 'integer, 0 or more, not None'),
        ({'window_bits': 8}, 'integer, 9 to 15, not 8'),
    ],
)
def test_any_other_setting_is_refused_with_the_reason(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Compression.from_setting(value)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.protocol.utf8 import is_valid_utf8, unfinished_character

INVALID = [
    b'\x80',
    b'\xc0\x80',
    b'\xed\xa0\x80',
    b'\xf4\x90\x80\x80',
    b'\xf8\x88\x80\x80\x80',
    b'\xe2\x28\xa1',
    b'\xff',
]


@pytest.mark.parametrize('data', [b'', b'plain', 'grüße'.encode(), '日本'.encode(), '😀'.encode()])
def test_text_is_valid(data: bytes) -> None:
    assert is_valid_utf8(data)


@pytest.mark.parametrize('data', [*INVALID, 'ü'.encode()[:1], '😀'.encode()[:3]])
def test_what_is_no_text_or_is_cut_off_is_invalid(data: bytes) -> None:
    assert not is_valid_utf8(data)


@pytest.mark.parametrize('data', INVALID)
def test_pieces_that_cannot_become_valid_are_refused_at_once(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        unfinished_character(data)


@pytest.mark.parametrize('data', [b'\xed\xa0', b'\xf4\x90', b'\xe0\x80', b'\xf0\x80', b'\xc1'])
def test_a_beginning_that_has_no_valid_continuation_is_refused(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        unfinished_character(data)


@given(st.text(), st.data())
def test_the_unfinished_character_is_what_decoding_leaves_over(
    text: str, data: st.DataObject
) -> None:
    encoded = text.encode()
    cut = data.draw(st.integers(0, len(encoded)))
    rest = unfinished_character(encoded[:cut])
    assert len(rest) <= 3
    assert encoded[: cut - len(rest)].decode() + (rest + encoded[cut:]).decode() == text


@given(st.binary(max_size=40))
def test_valid_is_what_pythons_codec_decodes(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not is_valid_utf8(data)
    else:
        assert is_valid_utf8(data)

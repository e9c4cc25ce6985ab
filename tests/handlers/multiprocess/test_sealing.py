"""What passes through Redis is of no use to those who read it there."""

from __future__ import annotations

import pytest
from django.test import override_settings

from ws4redis.handlers.multiprocess.sealing import WrongSeal, seal, unseal

DATA = b'{"HTTP_COOKIE": "sessionid=secret"}'


@pytest.mark.parametrize('data', [b'', b'\0', b'\0' * 100, DATA, bytes(range(256)) * 300])
def test_what_was_sealed_comes_back(data: bytes) -> None:
    assert unseal(seal(data)) == data


def test_nothing_of_it_can_be_read_and_no_two_are_alike() -> None:
    one, other = seal(DATA), seal(DATA)
    assert b'secret' not in one
    assert one[64:] != other[64:]


@pytest.mark.parametrize('position', [0, 31, 32, 63, 64, -1])
def test_what_was_tampered_with_is_refused(position: int) -> None:
    sealed = bytearray(seal(DATA))
    sealed[position] ^= 1
    with pytest.raises(WrongSeal):
        unseal(bytes(sealed))


@pytest.mark.parametrize('sealed', [b'', b'x', b'x' * 32, DATA])
def test_what_was_never_sealed_is_refused(sealed: bytes) -> None:
    with pytest.raises(WrongSeal):
        unseal(sealed)


def test_another_secret_key_does_not_open_it_but_a_fallback_does() -> None:
    with override_settings(SECRET_KEY='old'):
        sealed = seal(DATA)
    with override_settings(SECRET_KEY='new'), pytest.raises(WrongSeal):
        unseal(sealed)
    with override_settings(SECRET_KEY='new', SECRET_KEY_FALLBACKS=['older', 'old']):
        assert unseal(sealed) == DATA

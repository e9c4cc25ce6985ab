"""What passes through Redis is of no use to those who read it there."""

from __future__ import annotations

import base64
import sys

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from ws4redis.handlers.multiprocess.sealing import WrongSeal, seal, unseal

DATA = b'{"HTTP_COOKIE": "sessionid=secret"}'


@pytest.mark.parametrize('data', [b'', b'\0', b'\0' * 100, DATA, bytes(range(256)) * 300])
def test_what_was_sealed_comes_back(data: bytes) -> None:
    assert unseal(seal(data)) == data


def test_nothing_of_it_can_be_read_and_no_two_are_alike() -> None:
    one, other = seal(DATA), seal(DATA)
    assert b'secret' not in one
    assert base64.urlsafe_b64decode(one)[25:] != base64.urlsafe_b64decode(other)[25:]


@pytest.mark.parametrize('position', [0, 20, 40, -10])
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


@pytest.mark.parametrize('command', [('run_wsserver', '--multiprocess'), ('run_wsworker',)])
@override_settings(DEFAULT_WS_HANDLERS={'default': 'ws4redis.handlers.WebSocketHandler'})
def test_without_the_package_the_commands_say_what_to_install(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'cryptography.fernet', None)
    with pytest.raises(CommandError, match=r'pip install django-websocket-redis\[multiprocess\]'):
        call_command(*command)

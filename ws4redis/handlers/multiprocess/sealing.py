"""Keep what passes through Redis from those who can read it there, but not the settings.

A handshake carries credentials: the session's cookie, a token. Handlers need them, since the policy
of the project decides by them, but they must not lie in Redis, its append-only file and its backups
for everyone to use. So they are encrypted and authenticated with keys made from ``SECRET_KEY``,
which the server and its workers share.

Python has no cipher. This one is a construction of its hash functions: SHAKE-256 with a secret
prefix gives a key stream that is never used twice, and an HMAC over the result shows whether it
was changed (encrypt, then authenticate).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from hashlib import shake_256

from django.conf import settings
from django.utils.crypto import salted_hmac

NONCE_BYTES = 32
TAG_BYTES = 32
_SALT = 'ws4redis.handlers.multiprocess'


class WrongSeal(Exception):
    """Tell that what came was sealed with another ``SECRET_KEY``, or is damaged."""


def seal(data: bytes) -> bytes:
    """Encrypt and authenticate; see :func:`unseal`."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + _encrypt(settings.SECRET_KEY, nonce, data)
    return _tag(settings.SECRET_KEY, sealed) + sealed


def unseal(sealed: bytes) -> bytes:
    """Return what was given to :func:`seal`.

    ``SECRET_KEY_FALLBACKS`` are tried too, as for signed cookies. Raise :class:`WrongSeal`.
    """
    tag, sealed = sealed[:TAG_BYTES], sealed[TAG_BYTES:]
    for secret in _secrets():
        if hmac.compare_digest(tag, _tag(secret, sealed)):
            return _encrypt(secret, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:])
    raise WrongSeal('it was sealed with another SECRET_KEY, or is damaged')


def _secrets() -> Iterable[str | bytes]:
    return (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)


def _key(secret: str | bytes, purpose: str) -> bytes:
    return salted_hmac(f'{_SALT}.{purpose}', b'', secret=secret, algorithm='sha256').digest()


def _tag(secret: str | bytes, sealed: bytes) -> bytes:
    return hmac.digest(_key(secret, 'authenticate'), sealed, 'sha256')


def _encrypt(secret: str | bytes, nonce: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt: the same operation does both."""
    stream = shake_256(_key(secret, 'encrypt') + nonce).digest(len(data))
    mixed = int.from_bytes(data, 'big') ^ int.from_bytes(stream, 'big')
    return mixed.to_bytes(len(data), 'big')

"""Keep what passes through Redis from those who can read it there, but not the settings.

A handshake carries credentials: the session's cookie, a token. Handlers need them, since the policy
of the project decides by them, but they must not lie in Redis, its append-only file and its backups
for everyone to use. So they are Fernet tokens of the package cryptography, with keys made from
``SECRET_KEY``, which the server and its workers share.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_SALT = 'ws4redis.handlers.multiprocess'


class WrongSeal(Exception):
    """Tell that what came was sealed with another ``SECRET_KEY``, or is damaged."""


def require_cipher() -> None:
    """Raise ``ImproperlyConfigured`` where the package is missing, which other modes do without."""
    try:
        import cryptography.fernet  # noqa: F401
    except ImportError as exc:
        raise ImproperlyConfigured(
            'Handlers in other processes need the package cryptography, since cookies pass through '
            'Redis: pip install django-websocket-redis[multiprocess]'
        ) from exc


def seal(data: bytes) -> bytes:
    """Encrypt and authenticate; see :func:`unseal`."""
    return _cipher().encrypt(data)


def unseal(sealed: bytes) -> bytes:
    """Return what was given to :func:`seal`.

    ``SECRET_KEY_FALLBACKS`` are tried too, as for signed cookies. Raise :class:`WrongSeal`.
    """
    from cryptography.fernet import InvalidToken

    try:
        return _cipher().decrypt(sealed)
    except InvalidToken:
        raise WrongSeal('it was sealed with another SECRET_KEY, or is damaged') from None


def _cipher() -> MultiFernet:
    return _cipher_of(settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)


@lru_cache(maxsize=8)
def _cipher_of(*secrets: str | bytes) -> MultiFernet:
    from cryptography.fernet import Fernet, MultiFernet

    digests = [salted_hmac(_SALT, b'', secret=s, algorithm='sha256').digest() for s in secrets]
    return MultiFernet([Fernet(urlsafe_b64encode(digest)) for digest in digests])

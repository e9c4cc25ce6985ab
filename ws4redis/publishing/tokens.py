"""Tokens: who somebody is, or which channel he may subscribe to, signed (JWT, RFC 7519).

The keys are those of ``WS4REDIS_TOKEN_KEYS``, or derived from ``SECRET_KEY`` and its fallbacks. A
key of HMAC is never tried with an algorithm of public keys, nor the other way round, and ``none``
is no algorithm.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import jwt
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac

from ws4redis.broker.control import digest_of_session
from ws4redis.conf import conf
from ws4redis.publishing.identity import (
    group_names,
    id_of_user,
    name_of_session,
    name_of_user,
    stamp_of,
)

TOKEN_SECONDS: Final = 3600

_HMAC: Final = ('HS256', 'HS384', 'HS512')
_PUBLIC: Final = (
    *('RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'),
    *('ES256', 'ES384', 'ES512', 'EdDSA'),
)
# Shorter keys of HMAC are filled up with zeros to the size of its block (RFC 2104, section 2), so
# this changes no signature.
_HMAC_BLOCK_BYTES: Final = 64
# The clock of the host that made a token may be ahead of this one's.
_UNCHECKED: Final[Any] = {'verify_aud': False, 'verify_iat': False}
# A claim of our own: what ties a token to a session and a password.
TIES: Final = 'ws4redis'


class InvalidToken(Exception):
    """Tell that a token proves nothing; ``has_expired`` that it did before."""

    def __init__(self, why: str, *, has_expired: bool = False) -> None:
        super().__init__(why)
        self.has_expired = has_expired


def connection_token(
    user: Any,
    *,
    expire: float | None = TOKEN_SECONDS,
    info: Mapping[str, Any] | None = None,
    channels: list[str] | tuple[str, ...] = (),
    session: Any = None,
) -> str:
    """Return a token that says who opens a connection: its parameter ``token``.

    ``user`` is a user, the name of one, or None for an anonymous visitor. The token expires after
    ``expire`` seconds; None: never. ``info`` is shown to others, in presence. ``channels`` are
    names, as clients give them, that the server subscribes the connection to. The groups of a user
    are a part of it. With a ``session``
    (or its key) the connection ends when that does. It ends with a changed password and a
    deactivated user in any case.

    Raise ``ValueError`` for something that is no user, and ``ImproperlyConfigured`` where no key of
    ``WS4REDIS_TOKEN_KEYS`` can sign.
    """
    claims: dict[str, Any] = {'sub': _subject(user), **_times(expire)}
    if info is not None:
        claims['info'] = dict(info)
    if channels:
        claims['channels'] = list(channels)
    ties = _ties(user, session)
    if ties:
        claims[TIES] = ties
    return sign(claims)


def subscription_token(
    channel: str,
    user: Any,
    *,
    expire: float | None = TOKEN_SECONDS,
    info: Mapping[str, Any] | None = None,
) -> str:
    """Return a token that lets a user subscribe to one channel, and to no other.

    ``channel`` is the name as the client gives it. The other arguments, and what is raised, are as
    for :func:`connection_token`.
    """
    if not channel:
        raise ValueError('name a channel')
    claims: dict[str, Any] = {'sub': _subject(user), 'channel': channel, **_times(expire)}
    if info is not None:
        claims['info'] = dict(info)
    return sign(claims)


def _subject(user: Any) -> str:
    if user is None:
        return ''
    if isinstance(user, str):
        return user
    name = name_of_user(user)
    if name is None and not getattr(user, 'is_anonymous', False):
        raise ValueError(f'user must be a user, the name of one, or None, not {user!r}')
    return name or ''


def _times(expire: float | None) -> dict[str, float]:
    now = time.time()
    return {'iat': int(now)} if expire is None else {'iat': int(now), 'exp': now + expire}


def _ties(user: Any, session: Any) -> dict[str, Any]:
    key = session if isinstance(session, str) else name_of_session(session)
    ties: dict[str, Any] = {}
    if isinstance(key, str) and key:
        ties['session'] = digest_of_session(key)
    if user is None or isinstance(user, str):
        return ties
    if name_of_user(user) is None:
        return ties
    known = {'stamp': stamp_of(user), 'id': id_of_user(user), 'groups': group_names(user)}
    ties.update({name: value for name, value in known.items() if value is not None})
    if getattr(user, 'is_staff', False) is True:
        ties['staff'] = True
    return ties


# Keys


def sign(claims: Mapping[str, Any]) -> str:
    """Return a token; raise ``ImproperlyConfigured`` where there is no key for it."""
    return jwt.encode(dict(claims), signing_key(), algorithm='HS256')


def signing_key() -> bytes:
    """Return the key that signs; raise ``ImproperlyConfigured`` where there is none."""
    for key in hmac_keys():
        return key
    raise ImproperlyConfigured(
        'WS4REDIS_TOKEN_KEYS holds public keys alone, which only check tokens: who has the private '
        'ones makes them.'
    )


def hmac_keys() -> Iterator[bytes]:
    """Yield the secrets that are believed, the one that signs first."""
    for key, algorithms in _keys():
        if algorithms is _HMAC:
            assert isinstance(key, bytes)
            yield key


def claims_of(token: str) -> dict[str, Any]:
    """Return what a token says; raise ``InvalidToken``."""
    why: Exception | None = None
    for key, algorithms in _keys():
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=list(algorithms), options=_UNCHECKED
            )
        except jwt.ExpiredSignatureError:
            # The signature is right, so another key would make no difference.
            raise InvalidToken('it has expired', has_expired=True) from None
        except (jwt.PyJWTError, ValueError, TypeError) as exc:
            why = exc
        else:
            return claims
    raise InvalidToken(str(why)) from why


def _keys() -> Iterator[tuple[bytes | str, tuple[str, ...]]]:
    """Yield the keys that are believed, the one that signs first."""
    keys = conf.WS4REDIS_TOKEN_KEYS
    if keys is None:
        yield _derived_key(settings.SECRET_KEY), _HMAC
        for secret in settings.SECRET_KEY_FALLBACKS:
            yield _derived_key(secret), _HMAC
        return
    for key in [keys] if isinstance(keys, str) else keys:
        if is_public_key(key):
            yield key, _PUBLIC
        else:
            yield key.encode().ljust(_HMAC_BLOCK_BYTES, b'\0'), _HMAC


@lru_cache(maxsize=16)
def _derived_key(secret: str | bytes) -> bytes:
    derived = salted_hmac('ws4redis.tokens', b'', secret=secret, algorithm='sha256')
    return derived.digest().ljust(_HMAC_BLOCK_BYTES, b'\0')


def is_public_key(key: str) -> bool:
    """Tell whether a key is a public one (PEM), rather than the secret of HMAC."""
    return key.lstrip().startswith('-----BEGIN')

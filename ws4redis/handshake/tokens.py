"""Tokens and tickets that clients show: who they are, and what they may subscribe to.

A *ticket* is a token for one that was admitted before. It says all that a handshake finds out, and
so spares the session store and the database. It lives for a few minutes, and is taken only by a
process that knows of everything that has ended since it was made, and only with the cookie of its
session. Whoever is refused with it is asked as ever.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ws4redis.broker.client_names import ClientName, parse_client_name
from ws4redis.exceptions import ClientError
from ws4redis.handshake.look_ups import verdict_of
from ws4redis.hub.identity import ANONYMOUS, Identity, digest_of
from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode
from ws4redis.publishing.tickets import claims_of_ticket, sign_ticket
from ws4redis.publishing.tokens import TIES, InvalidToken, claims_of

if TYPE_CHECKING:
    from ws4redis.hub.control import Control

TICKET_SECONDS: Final = 300
_TICKET: Final = 'ticket'
_TEXTS: Final = ('session', 'stamp', 'id')


def identity_of_token(token: str, control: Control | None = None) -> Identity:
    """Return who a connection token says its bearer is. May block.

    ``control`` knows what has ended since the token was made; then the user is looked up. Raise
    ``ClientError``: the protocol's 109 for a token that has expired, 3500 for any other.
    """
    try:
        claims = claims_of(token)
        if 'channel' in claims or _TICKET in claims:
            raise InvalidToken('it is no token of a connection')
        identity = _identity_in(claims)
    except InvalidToken as exc:
        if exc.has_expired:
            raise ClientError(ErrorCode.TOKEN_EXPIRED, 'token expired') from None
        raise ClientError(DisconnectCode.INVALID_TOKEN, 'invalid token') from None
    _refuse_ended(identity, claims.get('iat', 0), control)
    return identity


def expiry_of_grant(token: str, channel: ClientName, identity: Identity) -> float | None:
    """Return when the right to subscribe ends that a token grants; None: never. Does not block.

    Raise ``ClientError``: 109 for a token that has expired, 103 for one of another channel or user,
    or with another key.
    """
    try:
        claims = claims_of(token)
        name = claims.get('channel')
        if not isinstance(name, str) or parse_client_name(name)[:3] != channel[:3]:
            raise InvalidToken('it is one of another channel')
        if claims.get('sub', '') != (identity.user or ''):
            raise InvalidToken('it is one of another user')
        return _time_in(claims, 'exp')
    except (InvalidToken, ValueError) as exc:
        if isinstance(exc, InvalidToken) and exc.has_expired:
            raise ClientError(ErrorCode.TOKEN_EXPIRED, 'token expired') from None
        raise ClientError(ErrorCode.PERMISSION_DENIED, 'permission denied') from None


def ticket_of(identity: Identity, *, seconds: float = TICKET_SECONDS) -> str | None:
    """Return a ticket for somebody who was admitted; None for somebody without a session."""
    if identity.session is None:
        return None
    now = time.time()
    expires = now + seconds if identity.expires is None else min(identity.expires, now + seconds)
    # A page can read its ticket, and is never to see the key of its session.
    values = {name: value for name, value in identity.as_dict().items() if name != 'session'}
    return sign_ticket(values, made_at=now, expires=expires)


def identity_of_ticket(
    ticket: str, session_key: str | None, control: Control | None
) -> Identity | None:
    """Return the identity in a ticket, None where it is not taken. Does not block.

    ``session_key`` is the one that the client's cookie names.
    """
    if control is None or not control.is_current:
        return None
    try:
        claims = claims_of_ticket(ticket)
        identity = Identity.from_dict({**claims[_TICKET], 'session': session_key})
        made_at = _time_in(claims, 'iat')
    except (InvalidToken, KeyError, TypeError, ValueError):
        return None
    if made_at is None or control.ended.has_ended(identity, made_at):
        return None
    # Whoever finds a ticket, in a log say, can do nothing with it.
    digest = digest_of(session_key)
    if digest is None or digest != identity.session_digest:
        return None
    # Whatever the clocks say.
    if control.ended.session_has_ended(digest):
        return None
    return identity


def _identity_in(claims: dict[str, Any]) -> Identity:
    subject = claims.get('sub', '')
    info = claims.get('info', {})
    channels = claims.get('channels', [])
    ties = claims.get(TIES, {})
    if not (
        isinstance(subject, str)
        and isinstance(channels, list)
        and all(isinstance(name, str) for name in channels)
        and isinstance(ties, dict)
        and isinstance(ties.get('groups', []), list)
        and all(isinstance(ties.get(name, ''), str) for name in _TEXTS)
    ):
        raise InvalidToken('its claims are of another form')
    return Identity(
        user=subject or None,
        user_id=ties.get('id'),
        session_digest=ties.get('session'),
        stamp=ties.get('stamp'),
        expires=_time_in(claims, 'exp'),
        info=info if isinstance(info, dict) else {'info': info},
        channels=tuple(channels),
        groups=tuple(map(str, ties.get('groups', ()))),
        knows_groups='groups' in ties,
        is_staff=ties.get('staff') is True,
    )


def _time_in(claims: dict[str, Any], name: str) -> float | None:
    moment = claims.get(name)
    if moment is None:
        return None
    if not isinstance(moment, int | float) or isinstance(moment, bool):
        raise InvalidToken(f'its {name} is no time')
    return float(moment)


def _refuse_ended(identity: Identity, made_at: Any, control: Control | None) -> None:
    """Refuse a token that was made before something ended; raise ``ClientError``."""
    if control is None or identity == ANONYMOUS:
        return
    made_at = float(made_at) if isinstance(made_at, int | float) else 0.0
    if identity.session_digest is not None and control.ended.session_has_ended(
        identity.session_digest
    ):
        raise ClientError(DisconnectCode.INVALID_TOKEN, 'invalid token')
    is_ours = identity.stamp is not None or identity.user_id is not None
    if is_ours and control.ended.has_ended(identity, made_at) and verdict_of(identity).code:
        raise ClientError(DisconnectCode.INVALID_TOKEN, 'invalid token')

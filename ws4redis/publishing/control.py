"""Ending what was granted: what a project calls, and what Django's signals call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ws4redis.broker.channels import Audience, channel_name
from ws4redis.broker.control import ControlMessage, Do, digest_of_session
from ws4redis.conf import conf
from ws4redis.protocol.end_codes import EndCode
from ws4redis.protocol.frames import is_sendable_close_code
from ws4redis.publishing.broker import current_broker
from ws4redis.publishing.identity import (
    id_of_user,
    name_of_group,
    name_of_session,
    name_of_user,
)

MAX_REASON_BYTES = 123


def disconnect(
    *,
    user: Any = None,
    session: Any = None,
    code: int = EndCode.DISCONNECTED,
    reason: str = '',
) -> None:
    """End all connections of a user, of a session, or of a user in a session, in every process.

    ``user`` is a user or the name; ``session`` a session or its key. ``code`` is the close code:
    with the default, 3503, clients do not come back by themselves; below 3500, and from 4000 to
    4499, they do. Tickets that were given to them are not taken any more.

    Raise ``ValueError`` if neither user nor session is given, or one that has no name, or for a
    code or reason that cannot be sent; and redis-py's ``ConnectionError`` when Redis cannot be
    reached. A process that is cut off from Redis learns of it when it is back.
    """
    current_broker().tell([_disconnection(user, session, code, reason)])


async def adisconnect(
    *,
    user: Any = None,
    session: Any = None,
    code: int = EndCode.DISCONNECTED,
    reason: str = '',
) -> None:
    """Do as :func:`disconnect` without blocking the event loop."""
    await current_broker().atell([_disconnection(user, session, code, reason)])


def unsubscribe(
    facility: str,
    *,
    user: Any = None,
    session: Any = None,
    group: Any = None,
    audience: str | None = None,
) -> None:
    """Let the connections of a user or session leave a channel, in every process.

    By default that is the facility's channel of that very user or session; with ``group`` that of
    a group, with ``audience='broadcast'`` the one of everybody. They may subscribe to it again
    unless your policy refuses it then. Raise as :func:`disconnect` does.
    """
    current_broker().tell([_unsubscription(facility, user, session, group, audience)])


async def aunsubscribe(
    facility: str,
    *,
    user: Any = None,
    session: Any = None,
    group: Any = None,
    audience: str | None = None,
) -> None:
    """Do as :func:`unsubscribe` without blocking the event loop."""
    await current_broker().atell([_unsubscription(facility, user, session, group, audience)])


def message_to(do: Do, *, user: Any = None, session: Any = None, **more: Any) -> ControlMessage:
    """Return a message to whoever is a user, has a session, or both; raise ``ValueError``."""
    if user is None and session is None:
        raise ValueError('name a user or a session')
    name = user_id = digest = None
    if user is not None:
        name = (user or None) if isinstance(user, str) else name_of_user(user)
        user_id = None if isinstance(user, str) else id_of_user(user)
        if name is None and user_id is None:
            raise ValueError(f'user must be a user or the name of one, not {user!r}')
    if session is not None:
        key: object = session if isinstance(session, str) else name_of_session(session)
        if not isinstance(key, str) or not key:
            raise ValueError('session must be a session that has a key, or its key')
        digest = digest_of_session(key)
    return ControlMessage(do, user=name, user_id=user_id, session=digest, **more)


def _disconnection(user: Any, session: Any, code: int, reason: Any) -> ControlMessage:
    if not is_sendable_close_code(code):
        raise ValueError(f'{code} cannot be sent as a close code')
    if not isinstance(reason, str) or len(reason.encode()) > MAX_REASON_BYTES:
        raise ValueError(f'reason must be text of at most {MAX_REASON_BYTES} bytes')
    return message_to(Do.DISCONNECT, user=user, session=session, code=int(code), reason=reason)


def _unsubscription(
    facility: str, user: Any, session: Any, group: Any, audience: str | None
) -> ControlMessage:
    if not isinstance(facility, str):
        raise ValueError(f'facility must be a string, not {facility!r}')
    prefix = conf.key_prefix
    if audience == Audience.BROADCAST:
        channel = channel_name(Audience.BROADCAST, facility, prefix=prefix)
    elif audience is not None:
        raise ValueError(f"audience must be 'broadcast' or None, not {audience!r}")
    elif group is not None:
        channel = _channel_of(Audience.GROUP, facility, group, name_of_group)
    elif user is not None:
        channel = _channel_of(Audience.USER, facility, user, name_of_user)
    else:
        channel = _channel_of(Audience.SESSION, facility, session, name_of_session)
    return message_to(Do.UNSUBSCRIBE, user=user, session=session, channel=channel)


def _channel_of(
    audience: Audience, facility: str, whose: Any, name_of: Callable[[Any], object]
) -> str:
    name = whose if isinstance(whose, str) else name_of(whose)
    if not isinstance(name, str) or not name:
        raise ValueError(f'{whose!r} is no {audience}, nor the name of one')
    return channel_name(audience, facility, name, prefix=conf.key_prefix)

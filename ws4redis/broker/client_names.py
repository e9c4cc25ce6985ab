"""The names of channels in the client protocol.

They are those of Redis without what the server knows better than the client: its own user and
session, and the prefix. So a page never learns a session key.

    broadcast:<facility>            or <facility> alone
    user:<facility>                 of the user who is logged in
    group:<group name>:<facility>
    session:<facility>              of the client's session
"""

from __future__ import annotations

from typing import NamedTuple

from ws4redis.broker.channels import Audience, channel_name, unquote_name

_AUDIENCES = {audience.value: audience for audience in Audience}


class ClientName(NamedTuple):
    """A name as a client gave it, taken apart; ``group`` is empty but for groups."""

    audience: Audience
    group: str
    facility: str
    is_short: bool


def parse_client_name(name: str) -> ClientName:
    """Take a name apart; raise ``ValueError`` for a group without a facility."""
    word, colon, rest = name.partition(':')
    audience = _AUDIENCES.get(word) if colon else None
    if audience is None:
        return ClientName(Audience.BROADCAST, '', name, is_short=True)
    if audience is not Audience.GROUP:
        return ClientName(audience, '', rest, is_short=False)
    group, colon, facility = rest.partition(':')
    if not colon:
        raise ValueError(f'{name!r} names a group without a facility')
    return ClientName(audience, unquote_name(group), facility, is_short=False)


def full_name(
    name: ClientName, *, user: str | None, session: str | None, prefix: str = ''
) -> str | None:
    """Return a channel's name in Redis; None where the client has no user or session for it."""
    whose = {Audience.USER: user, Audience.SESSION: session, Audience.GROUP: name.group}
    owner = whose.get(name.audience, '')
    if owner is None:
        return None
    return channel_name(name.audience, name.facility, owner, prefix=prefix)


def client_name(channel: str, *, prefix: str = '', is_short: bool = False) -> str:
    """Return the name under which a client knows a channel of Redis.

    ``is_short`` leaves the word ``broadcast`` out, as a client may. What has another form than
    channels have, since a project's own code named it, stays as it is.
    """
    word, _, rest = channel.removeprefix(prefix).partition(':')
    match _AUDIENCES.get(word):
        case Audience.USER | Audience.SESSION:
            return f'{word}:{rest.partition(":")[2]}'
        case Audience.BROADCAST if is_short:
            return rest
    return channel.removeprefix(prefix)

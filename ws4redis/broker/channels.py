"""The names of Redis channels, and what a websocket's URL says about them.

A channel, which is also the key of its kept message, is named

    [prefix:]broadcast:<facility>
    [prefix:]user:<username>:<facility>
    [prefix:]group:<group name>:<facility>
    [prefix:]session:<session key>:<facility>

The facility comes last and may hold any character. The names before it are quoted, so that no name
can reach into another's channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from urllib.parse import parse_qsl


class Audience(StrEnum):
    """Who gets what is published on a channel."""

    BROADCAST = 'broadcast'
    USER = 'user'
    GROUP = 'group'
    SESSION = 'session'


# The two verbs that have a spelling of their own: `subscribe=broadcast`.
VERBS = frozenset({'subscribe', 'publish'})


def quote_name(name: str) -> str:
    """Return the name of a user, group or session as it stands in a channel's name."""
    return name.replace('%', '%25').replace(':', '%3A')


def unquote_name(quoted: str) -> str:
    """Return the name that ``quote_name`` quoted."""
    return quoted.replace('%3A', ':').replace('%25', '%')


def channel_name(audience: Audience, facility: str, name: str = '', *, prefix: str = '') -> str:
    """Return the name of a channel.

    ``name`` is that of the user or group, or the session's key; a broadcast has none. ``prefix``
    includes its colon.
    """
    if audience is Audience.BROADCAST:
        return f'{prefix}{audience}:{facility}'
    return f'{prefix}{audience}:{quote_name(name)}:{facility}'


def channel_names(
    facility: str,
    *,
    broadcast: bool = False,
    users: Iterable[str] = (),
    groups: Iterable[str] = (),
    sessions: Iterable[str] = (),
    prefix: str = '',
) -> list[str]:
    """Return the names of the channels of several audiences, each once.

    ``prefix`` includes its colon. The order is that in which kept messages are looked for:
    sessions, users, groups, broadcast.
    """
    named = (
        (Audience.SESSION, sessions),
        (Audience.USER, users),
        (Audience.GROUP, groups),
    )
    channels = [
        channel_name(audience, facility, name, prefix=prefix)
        for audience, names in named
        for name in names
    ]
    if broadcast:
        channels.append(channel_name(Audience.BROADCAST, facility, prefix=prefix))
    return list(dict.fromkeys(channels))


def is_websocket_path(path_info: str, websocket_url: str) -> bool:
    """Tell whether a request's path lies under the prefix of websockets.

    ``/ws`` as prefix means the same as ``/ws/``.
    """
    return path_info.startswith(websocket_url.rstrip('/') + '/')


def facility_of(path_info: str, websocket_url: str) -> str:
    """Return the facility of a websocket: its path, percent-decoded, after the prefix.

    It may be empty, and may contain slashes. Raise ``ValueError`` when the path does not lie under
    the prefix.
    """
    if not is_websocket_path(path_info, websocket_url):
        raise ValueError(f'{path_info!r} does not lie under {websocket_url!r}')
    return path_info[len(websocket_url.rstrip('/')) + 1 :]


def options_of(query_string: str) -> list[str]:
    """Return the options in a websocket's query string, each once, in lower case and dashed.

    ``subscribe-broadcast``, ``SUBSCRIBE=broadcast`` and ``subscribe=user,broadcast`` are
    understood; a value of any other option is ignored. Options that nobody knows are returned as
    well: the caller takes what its subscriber lists.
    """
    options: list[str] = []
    for name, value in parse_qsl(query_string, keep_blank_values=True, errors='replace'):
        name = name.strip().lower()
        if name in VERBS:
            audiences = (audience.strip().lower() for audience in value.split(','))
            options.extend(f'{name}-{audience}' for audience in audiences if audience)
        elif name:
            options.append(name)
    return list(dict.fromkeys(options))


def facility_in(channel: str, *, prefix: str = '') -> str | None:
    """Return the facility that a channel's name ends with; ``None`` for a name of another form.

    ``prefix`` includes its colon.
    """
    if not channel.startswith(prefix):
        return None
    audience, _, rest = channel[len(prefix) :].partition(':')
    if audience == Audience.BROADCAST:
        return rest
    if audience in _NAMED_AUDIENCES:
        _, colon, facility = rest.partition(':')
        return facility if colon else None
    return None


_NAMED_AUDIENCES = frozenset({Audience.USER, Audience.GROUP, Audience.SESSION})

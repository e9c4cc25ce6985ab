"""The settings of the client protocol: a part of ``Conf``, declared as the others are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ws4redis.settings import judges
from ws4redis.settings.facilities import matches
from ws4redis.settings.hooks import judge_rpc, load_callback
from ws4redis.settings.judges import must_be, or_none
from ws4redis.settings.setting import Setting


class ClientSettings:
    """Read the settings of the client protocol."""

    WS4REDIS_CLIENT_URL = Setting[str | None](
        'ws4redis.E085',
        default='connection/websocket',
        judge=must_be(
            "a path, such as '/connection/websocket' or 'connection/websocket', or None",
            or_none(judges.is_path_or_end),
        ),
        about='The path at which clients of the client protocol connect',
        hint="Give a path that starts with '/', or what comes after WEBSOCKET_URL; None: nowhere.",
    )
    WS4REDIS_CLIENT_ANONYMOUS = Setting[bool](
        'ws4redis.E086',
        default=True,
        judge=must_be('True or False', lambda value: isinstance(value, bool)),
        about='Whether clients may connect that are not logged in and have no token',
        hint='True lets anonymous clients of the client protocol connect, False refuses them.',
    )
    WS4REDIS_CLIENT_CHANNELS = Setting[Sequence[str]](
        'ws4redis.E087',
        default=(),
        judge=must_be(
            "a list of names of channels, such as ['user:inbox']",
            judges.is_list_of(judges.is_filled_string),
        ),
        about='Channels that the server subscribes each client to by itself',
        hint="Give names as clients use them, such as ['user:inbox', 'broadcast:news'].",
    )
    WS4REDIS_RPC = Setting[Mapping[str, str | Callable[..., Any]]](
        'ws4redis.E088',
        default={},
        judge=judge_rpc,
        about='What clients may call: functions by the names of their methods',
        hint='Map names or patterns to callables f(request, data), such as '
        "{'poll.vote': 'project.polls.vote', 'shop.*': 'project.shop.call'}.",
    )
    WS4REDIS_RPC_TIMEOUT = Setting[float](
        'ws4redis.E089',
        default=10,
        judge=judges.SECONDS,
        about='How many seconds code of the project may take for one command of a client',
        hint='Give the seconds after which a client is told that its command has failed.',
    )
    WS4REDIS_MAX_CHANNELS_PER_CONNECTION = Setting[int](
        'ws4redis.E090',
        default=1000,
        judge=must_be('a positive whole number', judges.is_positive_whole),
        about='How many channels one client of the client protocol may subscribe to',
        hint='Give how many channels one connection may have.',
    )
    WS4REDIS_MAX_CHANNEL_NAME_BYTES = Setting[int](
        'ws4redis.E091',
        default=255,
        judge=judges.BYTES,
        about='How long the name of a channel may be that a client gives',
        hint="Give how many bytes a channel's name may have in commands of clients.",
    )
    WS4REDIS_MAX_COMMANDS_PER_SECOND = Setting[float | None](
        'ws4redis.E092',
        default=1000,
        judge=judges.RATE,
        about='How many commands of one client are done a second',
        hint='Give how many commands one client may send a second; None: any number.',
    )

    def path_of_clients(self, websocket_url: str) -> str | None:
        """Return the path of the client protocol in full; None where it is not spoken."""
        path = self.WS4REDIS_CLIENT_URL
        if path is None or path.startswith('/'):
            return path
        return websocket_url.rstrip('/') + '/' + path

    def rpc_function(self, method: str) -> Callable[..., Any] | None:
        """Return what ``WS4REDIS_RPC`` has for a method: the first pattern that matches counts."""
        for pattern, function in self.WS4REDIS_RPC.items():
            if matches(pattern, method):
                return load_callback(f'WS4REDIS_RPC[{pattern!r}]', function, 2)
        return None

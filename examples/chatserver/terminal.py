"""Say how to publish from a terminal what the websockets of a page receive."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from redis.connection import parse_url

from ws4redis.conf import conf

LOCAL = {'localhost', '127.0.0.1', '::1'}
DEFAULT_PORT = 6379


def publish_commands(channels: Iterable[str], *, show_location: bool) -> list[str]:
    """Return a redis-cli command for each channel.

    Without ``show_location`` they do not tell where Redis is, which is not every visitor's
    business.
    """
    redis_cli = ['redis-cli', *(_location() if show_location else ())]
    return [
        shlex.join([*redis_cli, 'publish', channel, 'Hello from the terminal'])
        for channel in channels
    ]


def _location() -> list[str]:
    """Return the options of redis-cli for our Redis, as far as it is not the usual one."""
    connection = conf.WS4REDIS_CONNECTION
    if 'url' in connection:
        connection = {**connection, **parse_url(connection['url'])}
    if path := connection.get('unix_socket_path') or connection.get('path'):
        return ['-s', str(path)]
    options = []
    host, port = connection.get('host', 'localhost'), connection.get('port', DEFAULT_PORT)
    if host not in LOCAL:
        options += ['-h', str(host)]
    if port != DEFAULT_PORT:
        options += ['-p', str(port)]
    return options

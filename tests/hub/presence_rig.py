"""What the tests of presence share: a loop whose members are told, and what Redis has of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import redis

from tests.hub.rig import Home
from ws4redis.broker.keys import keys_of
from ws4redis.broker.link import RedisLink
from ws4redis.broker.presence import (
    ChangeKind,
    Member,
    join_command,
    member_id_of_user,
    processes_key,
    renew_command,
    text_of,
)
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import script_of

CHAT = b'broadcast:chat'
KEYS = keys_of(CHAT)
OTHER = 'f' * 16


def member(user: str, info: Any = None) -> Member:
    return Member(member_id_of_user(user), user, info)


def ids(*users: str) -> set[str]:
    return {member_id_of_user(user) for user in users}


class Process:
    """A loop with presence and mirrors, which hears what is told by a connection of its own."""

    def __init__(self, hub: Home, client: redis.Redis) -> None:
        self.hub = hub
        self.presence = hub.presence
        self.mirrors = hub.mirrors
        self.pubsub = client.pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe(KEYS.events)
        self.told: list[str] = []
        self.seen: list[str] = []

    def lose_commands(self) -> None:
        link = self.hub.links.commands
        assert isinstance(link, RedisLink)
        link.lost('a test')

    def turn(self) -> None:
        self.hub.turn()
        while (message := self.pubsub.get_message()) is not None:
            kind, _, number, value = message['data'].split(b' ', 3)
            self.told.append(f'{kind.decode()}{number.decode()} {Member.parse(value).user}')
            self.mirrors.event_received(CHAT, message['data'])

    def turn_until(self, condition: Callable[[], object], message: str = '') -> None:
        def turned() -> object:
            self.turn()
            return condition()

        self.hub.turn_until(turned, message=message)

    def listen(self) -> None:
        self.mirrors.listen(CHAT, self._changed, self._ready)
        self.turn_until(lambda: self.seen)

    def _ready(self, members: list[Member]) -> None:
        self.seen.append('= ' + ' '.join(sorted(str(m.user) for m in members)))

    def _changed(self, channel: bytes, kind: ChangeKind, who: Member) -> None:
        self.seen.append(f'{kind} {who.user}')


class Database:
    """What Redis has."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def run(self, command: Command) -> Any:
        return self.client.execute_command(*script_of(command).with_text(command))

    def members(self) -> set[str]:
        return set(map(text_of, self.client.hkeys(KEYS.members)))

    def processes(self) -> set[str]:
        names: Any = self.client.zrange(processes_key(''), 0, -1)
        return set(map(text_of, names))

    def holders(self, user: str) -> list[str]:
        return text_of(self.client.hget(KEYS.holders, member_id_of_user(user)) or '').split()

    def join(self, process: str, *users: str) -> None:
        values = {member_id_of_user(user): member(user).encode() for user in users}
        self.run(join_command(KEYS, process, values, epoch=secrets.token_hex(4)))

    def begin(self, process: str) -> None:
        self.run(renew_command(processes_key(''), process, is_first=True))

    def end_leases(self, *processes: str) -> None:
        self.client.zadd(processes_key(''), dict.fromkeys(processes, 1))

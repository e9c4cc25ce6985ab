"""Presence for connections of the client protocol: commands, and pushes of joins and leaves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ws4redis.broker.outgoing import options_of_channel
from ws4redis.broker.presence import ChangeKind, Member
from ws4redis.protocol.client.codes import ErrorCode
from ws4redis.protocol.client.replies import encode_push

if TYPE_CHECKING:
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.hub.clients.subscription import Subscription
    from ws4redis.hub.hub import Hub

_PUSHES = {ChangeKind.JOIN: 'join', ChangeKind.LEAVE: 'leave'}


class ClientPresence:
    """Answer who is there, and tell those who want to know of joins and leaves.

    Who watches a channel gets its members from the mirror that its pushes come from, so that both
    fit together.
    """

    def __init__(self, hub: Hub) -> None:
        self._mirrors = hub.mirrors
        # By channel; who watches under which name.
        self._watching: dict[bytes, dict[Subscription, ClientConnection]] = {}

    def tell_members(self, connection: ClientConnection, number: int, channel: str) -> None:
        """Answer the command ``presence``."""

        def answer(members: list[Member] | None) -> None:
            if members is None:
                connection.fail(number, ErrorCode.INTERNAL)
            else:
                infos = {member.id: client_info(member) for member in members}
                connection.reply(number, 'presence', {'presence': infos})

        self._mirrors.ask(_key(channel), answer)

    def tell_counts(self, connection: ClientConnection, number: int, channel: str) -> None:
        """Answer the command ``presence_stats``: a member is one client, however many tabs."""

        def answer(members: list[Member] | None) -> None:
            if members is None:
                connection.fail(number, ErrorCode.INTERNAL)
            else:
                users = {member.user or '' for member in members}
                result = {'num_clients': len(members), 'num_users': len(users)}
                connection.reply(number, 'presence_stats', result)

        self._mirrors.ask(_key(channel), answer)

    def watch(self, connection: ClientConnection, subscription: Subscription) -> None:
        """Push joins and leaves of a channel, if its facility has presence, from now on."""
        if not options_of_channel(subscription.channel).presence:
            return
        channel = _key(subscription.channel)
        watching = self._watching.get(channel)
        if watching is None:
            watching = self._watching[channel] = {}
            self._mirrors.listen(channel, self._told, _take_note)
        watching[subscription] = connection

    def unwatch(self, subscription: Subscription) -> None:
        """Push nothing more for a subscription."""
        channel = _key(subscription.channel)
        watching = self._watching.get(channel)
        if watching is None or watching.pop(subscription, None) is None:
            return
        if not watching:
            del self._watching[channel]
            self._mirrors.stop_listening(channel, self._told)

    def _told(self, channel: bytes, kind: ChangeKind, member: Member) -> None:
        content = {'info': client_info(member)}
        # Encoded once for all who know the channel by the same name.
        encode = partial(encode_push, _PUSHES[kind], content)
        pushes: dict[str, str] = {}
        for subscription, connection in list(self._watching.get(channel, {}).items()):
            name = subscription.name
            if name not in pushes:
                pushes[name] = encode(channel=name)
            connection.send(pushes[name])


def client_info(member: Member) -> dict[str, Any]:
    """Return a member as the protocol's ``ClientInfo``."""
    info = {'user': member.user or '', 'client': member.id}
    return info if member.info is None else {**info, 'conn_info': member.info}


def _key(channel: str) -> bytes:
    return channel.encode(errors='surrogateescape')


def _take_note(members: list[Member]) -> None:
    """Take the members of a channel that is watched: clients ask for them themselves."""

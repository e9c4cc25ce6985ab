"""Attendance: from the audiences of channels to their members."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING

from ws4redis.broker.presence import Member, member_id_of_user
from ws4redis.hub.identity import ANONYMOUS, Identity

if TYPE_CHECKING:
    from ws4redis.hub.channel import Channel
    from ws4redis.hub.peer import Peer
    from ws4redis.hub.presence import Presence


class Attendance:
    """Let the peers in the audiences of channels be members."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    def joined(self, channel: Channel, peer: Peer) -> None:
        """Take note that a peer has joined the audience of a channel."""
        self._presence.joined(channel.name, peer, member_of(peer))

    def left(self, channel: Channel, peer: Peer, *, at_once: bool) -> None:
        """Take note that a peer is in a channel no more; ``at_once``: since it said so."""
        self._presence.left(channel.name, peer, at_once=at_once)


def member_of(peer: object) -> Member:
    """Return who a peer is to others: its user, else its session, else nobody but itself."""
    receiver = getattr(peer, 'receiver', None)
    # A connection of the client protocol may have shown a token, which its handshake had not.
    identity: Identity = (
        getattr(receiver, 'identity', None) or getattr(peer, 'identity', None) or ANONYMOUS
    )
    info = dict(identity.info) or None
    if identity.user is not None:
        return Member(member_id_of_user(identity.user), identity.user, info)
    if identity.session is not None:
        # Others must not learn the key.
        digest = blake2b(identity.session.encode(), digest_size=8).hexdigest()
        return Member(f'session:{digest}', None, info)
    name = getattr(receiver, 'id', None) or secrets.token_hex(8)
    return Member(f'connection:{name}', None, info)

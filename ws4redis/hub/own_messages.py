"""What a websocket without ``echo`` has sent itself, so that it is not sent it back.

Two things are remembered: the content of the last message, which is not sent back whoever sends
it, as in earlier versions; and what is still under way through Redis, so that several messages sent
in a row are all recognised when they return.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws4redis.hub.messages import Messages
    from ws4redis.hub.peer import Peer

# Longer messages are remembered by their digest.
_VERBATIM_BYTES = 64
# A message may never come back: a subscriber's `publish_message` changed it, or Redis refused it.
# So the longest awaited are forgotten when this many are under way.
_MAX_UNDER_WAY = 1024


def fingerprint(payload: bytes) -> bytes:
    """Return something short that is equal for equal payloads, and for no others."""
    if len(payload) <= _VERBATIM_BYTES:
        return payload
    return blake2b(payload, digest_size=_VERBATIM_BYTES, person=b'ws4redis').digest() + b'\0'


class OwnMessages:
    """Recognise a websocket's own messages, by their fingerprints."""

    __slots__ = ('_under_way', 'has_skipped', 'is_diverted', 'last', 'sent_at')

    def __init__(self) -> None:
        self.last: bytes | None = None
        self.sent_at = 0.0
        # Whether the last one is among those that :class:`LastOwn` looks for.
        self.is_diverted = False
        # Whether its channels had messages that the websocket was not sent, being its own.
        self.has_skipped = False
        self._under_way: dict[bytes, int] = {}

    @property
    def are_under_way(self) -> bool:
        return bool(self._under_way)

    def sent(self, mark: bytes, *, copies: int, now: float) -> None:
        """Remember a message that will come back ``copies`` times."""
        self.last = mark
        if copies:
            self.sent_at = now
            self._under_way[mark] = self._under_way.get(mark, 0) + copies
            if len(self._under_way) > _MAX_UNDER_WAY:
                del self._under_way[next(iter(self._under_way))]

    def recognises(self, mark: bytes) -> bool:
        """Tell whether a message is not to be sent back; called once for each that arrives."""
        copies = self._under_way.get(mark)
        if copies is None:
            return mark == self.last
        if copies > 1:
            self._under_way[mark] = copies - 1
        else:
            del self._under_way[mark]
        return True

    def forget_under_way(self) -> None:
        """Expect nothing back any more: the connection on which it would come was lost."""
        self._under_way.clear()


class LastOwn:
    """The websockets whose last own message has a certain content.

    Once all that a websocket has sent is back, only that one content has to be kept from it. So it
    is sent to like any other, and diverted when a message with that content comes by. A websocket
    that only sends, or sends all the time, never gets here.
    """

    __slots__ = ('_senders',)

    def __init__(self) -> None:
        self._senders: dict[bytes, set[Peer]] = {}

    def __bool__(self) -> bool:
        return bool(self._senders)

    def is_of(self, peer: Peer, mark: bytes) -> bool:
        """Tell whether a peer has sent this content last."""
        return bool(self._senders) and peer in self._senders.get(mark, ())

    def add(self, peer: Peer, own: OwnMessages) -> None:
        """Look for what a peer has sent last."""
        if own.last is None or own.is_diverted:
            return
        own.is_diverted = True
        senders = self._senders.get(own.last)
        if senders is None:
            self._senders[own.last] = {peer}
        else:
            senders.add(peer)

    def forget(self, peer: Peer, own: OwnMessages) -> None:
        """Look for it no more; the peer is not sent to directly until it is added again."""
        if own.last is None or not own.is_diverted:
            return
        own.is_diverted = False
        mark = own.last
        senders = self._senders.get(mark)
        if senders is not None:
            senders.discard(peer)
            if not senders:
                del self._senders[mark]

    def divert(self, peers: list[Peer], messages: Messages) -> None:
        """Let those websockets look at each message which sent one of these contents last."""
        for mark in messages.marks:
            senders = self._senders.get(mark)
            if senders is not None:
                for peer in senders.intersection(peers):
                    peer.direct = False

"""What websockets publish in a Cluster: a queue for each node, and what changes queues.

Messages of one channel keep their order, also when its slot moves. For that a slot whose node
refuses a message is *blocked*: its messages wait apart until all that is under way to the node has
been answered, and go on from there together, in the order of their numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from redis.crc import key_slot

from ws4redis.broker.history import Kind
from ws4redis.broker.link import AWAY_ERRORS, MOVING_ERRORS, RedisLink, error_code
from ws4redis.hub.peer import Paused, Peer
from ws4redis.hub.publications import Done, Publication, Publications

if TYPE_CHECKING:
    from ws4redis.broker.history import Position

RETRY_SECONDS = 0.05


class NodePublications(Publications):
    """Publish on one node.

    ``refused`` is called with a message that the node cannot take, in the order in which they were
    written; ``settled`` after each answer, and when the connection is lost.
    """

    away_errors = AWAY_ERRORS - MOVING_ERRORS

    def attach(self, owner: ClusterPublications) -> None:
        self._owner = owner

    def settled(self, publication: Publication) -> None:
        error = publication.error
        if error is not None and error_code(error) in MOVING_ERRORS:
            del self._under_way[publication]
            self._under_way_bytes -= publication.packed_bytes
            self._unanswered_bytes -= publication.size
            publication.error = None
            self._owner.refused(self, publication, error)
        else:
            super().settled(publication)
        self._owner.answered(self, publication)

    def disconnected(self) -> None:
        super().disconnected()
        self._owner.lost(self)

    def last_under_way(self, slot: int) -> Publication | None:
        """Return the last message of a slot that the node has not answered."""
        return next((p for p in reversed(self._under_way) if slot_of(p) == slot), None)

    def take_waiting(self, is_wanted: Callable[[int], bool]) -> list[Publication]:
        """Give away what waits for some slots."""
        if not self._waiting:
            return []
        taken, kept = [], deque[Publication]()
        for publication in self._waiting:
            if is_wanted(slot_of(publication)):
                self._unanswered_bytes -= publication.size
                taken.append(publication)
            else:
                kept.append(publication)
        self._waiting = kept
        return taken

    def adopt(self, publications: Iterable[Publication]) -> None:
        """Let messages wait here; what is older goes first."""
        for publication in publications:
            self._add(publication)
        self._waiting = deque(sorted(self._waiting, key=lambda p: p.number))

    def retire(self) -> None:
        """Close the connection for good; what was not answered waits still."""
        RedisLink.stop(self)
        held_back, self._held_back = self._held_back, set()
        for peer in held_back:
            self._resume(peer)

    def holds_back(self, peer: Peer) -> bool:
        return peer in self._held_back

    def _resume(self, peer: Peer) -> None:
        if not self._owner.is_held_back(peer):
            peer.resume_reading(Paused.REDIS)


def slot_of(publication: Publication) -> int:
    (name,) = publication.channels
    return key_slot(name.encode(errors='surrogateescape'))


class ClusterPublications:
    """Publish on all nodes.

    ``queue_of`` names the queue of a slot's node, None while nobody has it. ``nowhere`` is where
    messages wait that have no node: it never connects.
    """

    def __init__(
        self,
        nowhere: NodePublications,
        queue_of: Callable[[int], NodePublications | None],
        redirected: Callable[[Exception], object],
    ) -> None:
        self._nowhere = nowhere
        nowhere.attach(self)
        self._queue_of = queue_of
        self._redirected = redirected
        self.queues: list[NodePublications] = [nowhere]
        # The slots whose messages wait apart, and the last one that is under way to their node.
        self._blocked: dict[int, tuple[NodePublications, Publication | None]] = {}

    @property
    def unanswered(self) -> int:
        return sum(queue.unanswered for queue in self.queues)

    @property
    def unanswered_bytes(self) -> int:
        return sum(queue.unanswered_bytes for queue in self.queues)

    def publish(
        self,
        peer: Peer,
        channels: tuple[str, ...],
        payload: bytes,
        kind: Kind = Kind.TEXT,
        once: str | None = None,
        done: Done | None = None,
    ) -> None:
        """Publish a message on each of its channels by itself."""
        if done is not None and len(channels) > 1:
            done = _Collected(len(channels), done).take
        for name in channels:
            slot = key_slot(name.encode(errors='surrogateescape'))
            self._queue(slot).publish(peer, (name,), payload, kind, once, done)

    def _queue(self, slot: int) -> NodePublications:
        if slot in self._blocked:
            return self._nowhere
        return self._queue_of(slot) or self._nowhere

    def forget(self, peer: Peer) -> None:
        for queue in self.queues:
            queue.forget(peer)

    def is_held_back(self, peer: Peer) -> bool:
        return any(queue.holds_back(peer) for queue in self.queues)

    def add(self, queue: NodePublications) -> None:
        queue.attach(self)
        self.queues.append(queue)

    def remove(self, queue: NodePublications) -> None:
        """Let go of a node that is gone; what waits for it waits for another."""
        queue.retire()
        self.queues.remove(queue)
        self._nowhere.adopt(queue.take_waiting(lambda slot: True))

    def turn_end(self) -> bool:
        # All of them: one that has more to do must not keep the others from writing.
        has_more = [queue.turn_end() for queue in self.queues]
        return any(has_more)

    def stop(self) -> None:
        for queue in self.queues:
            queue.stop()

    # What queues tell

    def refused(self, queue: NodePublications, publication: Publication, error: Exception) -> None:
        """Let a message that a node cannot take wait until all before it is answered."""
        slot = slot_of(publication)
        if slot not in self._blocked:
            self._blocked[slot] = queue, queue.last_under_way(slot) or publication
            self._nowhere.adopt(queue.take_waiting(lambda waiting: waiting == slot))
        self._nowhere.adopt([publication])
        self._redirected(error)
        if error_code(error) != 'MOVED':
            # At once it would be refused again.
            held = self._blocked[slot]
            self._blocked[slot] = held[0], None
            self._nowhere.loop.call_later(RETRY_SECONDS, self._unblock, slot, held[0])

    def answered(self, queue: NodePublications, publication: Publication) -> None:
        if self._blocked:
            slot = slot_of(publication)
            blocked = self._blocked.get(slot)
            if blocked is not None and blocked[1] is publication:
                self._unblock(slot, queue)

    def _unblock(self, slot: int, queue: NodePublications) -> None:
        blocked = self._blocked.get(slot)
        if blocked is None or blocked[0] is not queue:
            return
        last = queue.last_under_way(slot)
        if last is not None:
            self._blocked[slot] = queue, last
            return
        del self._blocked[slot]
        self.replace({slot})

    def lost(self, queue: NodePublications) -> None:
        """Take note that a connection is lost: nothing is under way on it."""
        for slot in [slot for slot, blocked in self._blocked.items() if blocked[0] is queue]:
            del self._blocked[slot]

    def replace(self, slots: set[int] | None = None) -> None:
        """Let what waits go to where its slot is now; None: of all slots."""
        for queue in self.queues:

            def is_misplaced(slot: int, queue: NodePublications = queue) -> bool:
                return (slots is None or slot in slots) and self._queue(slot) is not queue

            by_queue: dict[NodePublications, list[Publication]] = {}
            for publication in queue.take_waiting(is_misplaced):
                by_queue.setdefault(self._queue(slot_of(publication)), []).append(publication)
            for other, publications in by_queue.items():
                other.adopt(publications)


class _Collected:
    """One answer from those on several channels."""

    def __init__(self, number: int, done: Done) -> None:
        self._remaining = number
        self._done = done
        self._positions: dict[str, Position] = {}
        self._error: Exception | None = None

    def take(self, positions: dict[str, Position] | None, error: Exception | None) -> None:
        self._positions |= positions or {}
        self._error = self._error or error
        self._remaining -= 1
        if not self._remaining:
            if self._error is None:
                self._done(self._positions, None)
            else:
                self._done(None, self._error)

"""Fan-out: from what arrived on channels to one ``send`` per peer.

What arrives for a channel is collected until the turn ends, framed once per wire format, joined,
and sent. A turn has a time for that, so that reads and handshakes get their share, and the channels
take turns within it: a little of each, so that a large audience or message holds up no other
channel. What is left is done in later turns. Within a channel the order is kept, since one batch
follows the other.

A burst arrives in pieces. Who has not been sent the first piece when the rest is there gets both at
once, since a ``send`` costs about the same for one message and for many.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from ws4redis.hub.messages import Messages
from ws4redis.hub.metrics import FACILITY_MESSAGES
from ws4redis.hub.own_messages import LastOwn, fingerprint
from ws4redis.hub.peer import SEND_FLAGS, Paused
from ws4redis.hub.publication import payload_of
from ws4redis.hub.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws4redis.hub.channel import Channel, Gap
    from ws4redis.hub.output import Chunk
    from ws4redis.hub.peer import Peer
    from ws4redis.hub.publication import Published
    from ws4redis.protocol.wire import WireFormat

logger = logging.getLogger('ws4redis')

# For this long a turn delivers.
TURN_SECONDS = 0.005
# A channel sends this much, or to so many websockets, before it is another's turn: about 1 ms.
STEP_PEERS = 200
STEP_BYTES = 512 * 1024
# An audience that takes longer than two turns: what arrives meanwhile is in time for most of it.
GATHER_PEERS = 2000
# So much of a batch is framed and joined at once; a larger message goes alone.
PORTION_BYTES = 64 * 1024
# Who publishes on a channel is read no further while this much of it is undelivered, and again at
# half of it.
MAX_CHANNEL_BACKLOG_BYTES = 256 * 1024
# Beyond this much undelivered input the bus is not read until some is delivered.
MAX_BACKLOG_BYTES = 32 * 1024 * 1024
# The channels among which the busiest are looked for.
MAX_COUNTED_CHANNELS = 2000


# Peers by their wire formats, in the order in which they are served.
Audience: TypeAlias = 'list[tuple[WireFormat, list[Peer]]]'


class Batch:
    """Publications of one channel, in order, that go to the same audience; or a gap."""

    __slots__ = (
        'audience',
        'channel',
        'gap',
        'gathered',
        'gathers',
        'messages',
        'next',
        'place',
        'publications',
        'steps',
    )

    def __init__(
        self, channel: Channel, publications: list[Published], gap: Gap | None = None
    ) -> None:
        self.channel = channel
        self.publications = publications
        self.gap = gap
        # Whoever is in the audience when the batch is begun, unless it was settled before.
        self.audience: Audience | None = None
        self.steps: Iterator[None] | None = None
        # The channel's next batch, if there is one already.
        self.next: Batch | None = None
        # What is being sent, and to whom next: the place of a wire format, and of a peer there.
        self.messages: Messages | None = None
        self.place = 0, 0
        # Whether those who were not sent it yet may get the next batch with it, and how many
        # publications that had when it was looked at.
        self.gathers = False
        self.gathered = 0

    def settle(self) -> Audience:
        """Fix the audience: who joins or leaves from now on makes no difference."""
        if self.audience is None:
            self.audience = [(wire, list(w)) for wire, w in self.channel.audiences.items()]
        return self.audience

    def take_portion(self) -> tuple[list[Published], int]:
        """Take the first ones away, one or more, as many as are framed at once; tell their size."""
        publications = self.publications
        size = 0
        for count, publication in enumerate(publications):
            length = len(publication)
            if count and size + length > PORTION_BYTES:
                portion = publications[:count]
                del publications[:count]
                return portion, size
            size += length
        self.publications = []
        return publications, size


class Fanout:
    """Deliver what arrives on channels to their peers."""

    def __init__(self, statistics: Statistics, clock: Callable[[], float]) -> None:
        self._statistics = statistics
        self._clock = clock
        # The first batch of each channel that has any.
        self._waiting: deque[Batch] = deque()
        self._held_back: dict[Channel, set[Peer]] = {}
        self.last_own = LastOwn()
        self.backlog_bytes = 0
        # Messages by the names of their channels, if somebody wants to know; who looks empties it.
        self.arrivals: dict[bytes, int] | None = None

    @property
    def is_congested(self) -> bool:
        return self.backlog_bytes > MAX_BACKLOG_BYTES

    def arrive(self, channel: Channel, publication: Published) -> None:
        """Take a publication; it goes out when the turn ends."""
        size = len(publication)
        self.backlog_bytes += size
        channel.backlog_bytes += size
        latest = channel.arrived
        if latest is not None and latest.audience is None and latest.gap is None:
            latest.publications.append(publication)
        else:
            self._append(channel, Batch(channel, [publication]))

    def tell_gap(self, channel: Channel, gap: Gap) -> None:
        """Tell the audience of a gap, behind what has arrived already."""
        self._append(channel, Batch(channel, [], gap))

    def _append(self, channel: Channel, batch: Batch) -> None:
        latest, channel.arrived = channel.arrived, batch
        if latest is not None:
            # All but the last one are settled: who joins settles that one.
            latest.settle()
        if latest is None:
            self._waiting.append(batch)
        else:
            latest.next = batch

    def call_in_turn(self, channel: Channel, call: Callable[[], object]) -> None:
        """Call when a message for a single websocket would be sent that arrives now on a channel.

        Nothing else may arrive on that channel.
        """
        batch = Batch(channel, [])
        batch.steps = _step_of(call)
        self._waiting.append(batch)

    @property
    def may_be_behind(self) -> bool:
        """Tell whether there may be a channel with too much undelivered."""
        return self.backlog_bytes > MAX_CHANNEL_BACKLOG_BYTES

    def hold_back(self, peer: Peer, channel: Channel) -> None:
        """Let a sender wait, if it publishes faster than the channel's peers are served.

        Else what is undelivered would grow until nothing more is read from Redis, at the cost of
        all other channels.
        """
        if channel.backlog_bytes > MAX_CHANNEL_BACKLOG_BYTES:
            self._held_back.setdefault(channel, set()).add(peer)
            peer.pause_reading(Paused.CHANNEL)

    def _let_go(self, channel: Channel) -> None:
        for peer in self._held_back.pop(channel, ()):
            peer.resume_reading(Paused.CHANNEL)

    def latest_waiting(self, channel: Channel) -> bytes | None:
        """Return the latest message of a channel that has arrived and was not delivered yet."""
        latest = channel.arrived
        if latest is None or not latest.publications:
            return None
        return payload_of(latest.publications[-1])

    def settle(self, channel: Channel) -> None:
        """Deliver what has arrived for a channel to those only who are in its audience now."""
        if channel.arrived is not None:
            channel.arrived.settle()

    def turn_end(self) -> bool:
        """Deliver for as long as a turn may; tell whether there is more to do."""
        waiting = self._waiting
        if not waiting:
            return False
        now = self._clock()
        deadline = now + TURN_SECONDS
        while waiting:
            batch = waiting.popleft()
            try:
                is_done = self._step(batch, now)
            except Exception:
                # What was not begun is delivered all the same.
                logger.exception('delivering messages of %r failed', batch.channel.name)
                batch.steps = None
                is_done = not batch.publications
            if not is_done:
                waiting.append(batch)
                if batch.gathers:
                    # Before most are served, see what else has arrived.
                    break
            elif batch.next is not None:
                waiting.append(batch.next)
            else:
                batch.channel.arrived = None
            now = self._clock()
            if now >= deadline:
                break
        return bool(waiting)

    def _step(self, batch: Batch, now: float) -> bool:
        """Deliver some of a batch; tell whether that was the last of it."""
        batch.channel.delivered_at = now
        if batch.steps is None and batch.gap is not None:
            batch.steps = self._tell(batch.channel, batch.gap, batch.settle())
        elif batch.steps is None:
            if self._deliver_to_one(batch):
                return True
            audience = batch.settle()
            messages = self._take_portion(batch)
            if messages is None:
                return True
            latest = (batch.publications or messages.publications)[-1]
            batch.channel.remember(payload_of(latest))
            if len(audience) == 1 and not batch.publications:
                # By far the most frequent case, and one that is most often done at once.
                wire, peers = audience[0]
                chunk = messages.framed(wire)
                if len(peers) <= _step_size(chunk):
                    self._deliver(peers, messages, chunk)
                    return True
            batch.steps = self._steps(batch, audience, messages)
            if not batch.publications and _number_in(audience) >= GATHER_PEERS:
                batch.messages = messages
                batch.gathers = True
        elif batch.next is not None or batch.gathers:
            self._gather(batch)
        return next(batch.steps, self) is self

    def _gather(self, batch: Batch) -> None:
        """Let the rest of an audience get what has arrived since with what is being sent to it."""
        following, messages = batch.next, batch.messages
        if following is None or messages is None or following.gap is not None:
            batch.gathers = False
            return
        place, start = batch.place
        audience = batch.settle()
        rest = [(audience[place][0], audience[place][1][start:]), *audience[place + 1 :]]
        is_worth_it = 4 * _number_in(rest) > _number_in(audience)
        arrived = len(following.publications)
        batch.gathers = is_worth_it and arrived > batch.gathered
        batch.gathered = arrived
        if batch.gathers:
            # Most likely there is more to come.
            return
        batch.messages = None
        publications = [*messages.publications, *following.publications]
        if is_worth_it and sum(map(len, publications)) <= PORTION_BYTES:
            self._merge(batch, rest, messages, following)

    def _merge(self, batch: Batch, rest: Audience, messages: Messages, following: Batch) -> None:
        pending = {wire: set(peers) for wire, peers in rest}
        both: Audience = []
        served: Audience = []
        for wire, peers in following.settle():
            staying = set(peers)
            waiting = pending.get(wire, set())
            both.append((wire, list(waiting & staying)))
            served.append((wire, list(staying - waiting)))
            waiting -= staying
        for wire, left in pending.items():
            # They have left the channel since.
            self._deliver(list(left), messages, messages.framed(wire))
        following.audience = served
        batch.channel.remember(payload_of(following.publications[-1]))
        publications = [*messages.publications, *following.publications]
        merged = Messages(publications, batch.channel.name)
        batch.steps = self._steps(batch, both, merged)

    def _deliver_to_one(self, batch: Batch) -> bool:
        """Deliver a single message to a single peer, if that is all and can be done at once.

        Where each user has a channel nearly all is of this kind, and nothing is made for it that
        many would share.
        """
        channel = batch.channel
        if batch.audience is not None or len(batch.publications) != 1:
            return False
        if len(channel.audiences) != 1:
            return False
        ((wire, peers),) = channel.audiences.items()
        if len(peers) != 1:
            return False
        (peer,) = peers
        (publication,) = batch.publications
        mark = fingerprint(payload_of(publication))
        if not peer.direct or self.last_own.is_of(peer, mark):
            return False
        # Settled: what arrives while it is sent goes into another batch.
        batch.audience, batch.publications = [], []
        self._take_off(channel, 1, len(publication))
        channel.last = mark
        peer.send(wire.encode(publication, channel.name), messages=1)
        return True

    def _steps(
        self,
        batch: Batch,
        audience: Audience,
        messages: Messages | None,
    ) -> Iterator[None]:
        """Deliver a batch, of which ``messages`` were taken; each step but the last yields."""
        is_first = True
        while messages is not None:
            for place, (wire, peers) in enumerate(audience):
                chunk = messages.framed(wire)
                size = _step_size(chunk)
                for start in range(0, len(peers), size):
                    if not is_first:
                        batch.place = place, start
                        yield
                    is_first = False
                    self._deliver(peers[start : start + size], messages, chunk)
            messages = self._take_portion(batch)

    def _tell(self, channel: Channel, gap: Gap, audience: Audience) -> Iterator[None]:
        """Tell an audience of a gap; each step but the last yields."""
        told = 0
        for _, peers in audience:
            for peer in peers:
                if channel in peer.channels:
                    peer.gap(channel, gap)
                told += 1
                if told % STEP_PEERS == 0:
                    yield

    def _take_portion(self, batch: Batch) -> Messages | None:
        if not batch.publications:
            return None
        publications, size = batch.take_portion()
        self._take_off(batch.channel, len(publications), size)
        return Messages(publications, batch.channel.name)

    def _take_off(self, channel: Channel, messages: int, size: int) -> None:
        """Count what is delivered now, and no more among what is undelivered."""
        FACILITY_MESSAGES.add(messages, channel.pattern)
        arrivals = self.arrivals
        if arrivals is not None:
            count = arrivals.get(channel.name, 0)
            if count or len(arrivals) < MAX_COUNTED_CHANNELS:
                arrivals[channel.name] = count + messages
        self.backlog_bytes -= size
        channel.backlog_bytes -= size
        if self._held_back and channel.backlog_bytes <= MAX_CHANNEL_BACKLOG_BYTES // 2:
            self._let_go(channel)

    def _deliver(self, peers: list[Peer], messages: Messages, chunk: Chunk) -> None:
        data = chunk.data
        size = len(data)
        count = chunk.messages
        elsewhere = 0
        if self.last_own:
            self.last_own.divert(peers, messages)
        # The hot path of the whole package. `send` itself costs about 5 microseconds; everything
        # that could be decided once (framing, flags, statistics) was taken out of the loop.
        for peer in peers:
            if peer.direct:
                try:
                    sent = peer.sock.send(data, SEND_FLAGS)  # type: ignore[union-attr]
                except (BlockingIOError, InterruptedError):
                    sent = 0
                except OSError:
                    elsewhere += 1
                    peer.lost(undelivered=count)
                    continue
                if sent != size:
                    elsewhere += 1
                    self._statistics.bytes_sent += sent
                    peer.queue(chunk, sent)
            else:
                elsewhere += 1
                peer.deliver(messages)
        direct = len(peers) - elsewhere
        self._statistics.messages_sent += direct * count
        self._statistics.bytes_sent += direct * size


def _step_of(call: Callable[[], object]) -> Iterator[None]:
    call()
    yield from ()


def _number_in(audience: Audience) -> int:
    return sum([len(peers) for _, peers in audience])


def _step_size(chunk: Chunk) -> int:
    """Return to how many peers a chunk is sent in one step."""
    return min(STEP_PEERS, STEP_BYTES // len(chunk.data)) or 1

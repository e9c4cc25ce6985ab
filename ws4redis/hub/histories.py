"""Catching up on channels with a history: nothing is missed, or a gap is told.

How it works, with states and messages, is told in ``docs/explanation/histories.md``.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ws4redis.broker.history import (
    Entry,
    Kind,
    NewEpoch,
    Position,
    Reading,
)
from ws4redis.broker.history import Outcome as ReadOutcome
from ws4redis.hub.channel import Delay, Gap, Outcome, Question
from ws4redis.hub.empty_channels import EmptyChannels
from ws4redis.hub.history_channel import HistoryChannel, Live, State, oldest_wanted
from ws4redis.hub.history_reader import HistoryReader
from ws4redis.hub.publication import Publication, publication_of
from ws4redis.hub.recovery import Recovery
from ws4redis.hub.tail import TailMemory

if TYPE_CHECKING:
    from ws4redis.broker.history import Header
    from ws4redis.hub.bus import Bus
    from ws4redis.hub.bus_link import BusLink
    from ws4redis.hub.fanout import Fanout
    from ws4redis.hub.statistics import Statistics

logger = logging.getLogger('ws4redis')

# The channel of the last one who left stays subscribed, so that its tail is there when they return.
LINGER_SECONDS = 60.0
# Names of channels may be the clients' choice.
MAX_LINGERING = 10_000
# What comes live while a channel catches up waits up to here; the rest is read.
MAX_WAITING_BYTES = 1024 * 1024
# A chain that cannot be followed after so many reads in a row is given up.
MAX_VAIN_READS = 5
RETRY_SECONDS = 1.0


class Histories:
    """Bring channels with a history up to date, and let peers join them.

    ``changed`` is called with a channel whose subscription may have to change. ``max_replay_bytes``
    bounds what one who comes back is sent, and the tail of one channel.
    """

    def __init__(
        self,
        bus: Bus,
        fanout: Fanout,
        *,
        statistics: Statistics,
        heartbeat: bytes | None,
        max_tail_bytes: int,
        max_replay_bytes: int,
        changed: Callable[[HistoryChannel], object],
    ) -> None:
        self._bus = bus
        self._fanout = fanout
        self._statistics = statistics
        self._heartbeat = heartbeat
        self._max_replay_bytes = max_replay_bytes
        self._memory = TailMemory(max_tail_bytes)
        self._changed = changed
        self._reader = HistoryReader(
            bus, statistics=statistics, max_bytes=max_replay_bytes, failed=self._read_failed
        )
        self._recovery = Recovery(
            bus,
            fanout,
            self._reader,
            self._memory,
            statistics=statistics,
            heartbeat=heartbeat,
            max_replay_bytes=max_replay_bytes,
            catch_up=self._catch_up,
            changed=changed,
        )
        self._lingering: OrderedDict[HistoryChannel, None] = OrderedDict()
        self._empty = EmptyChannels(bus.loop, self._catch_up)

    @property
    def tail_bytes(self) -> int:
        return self._memory.bytes

    # What the bus tells

    def ask(self, channel: HistoryChannel) -> None:
        """Go on with a channel that is subscribed, and that somebody wants."""
        self._stop_lingering(channel)
        if channel.state is State.AWAY:
            self._catch_up(channel)
        elif channel.state is State.LIVE:
            self._recovery.enqueue(channel)

    def arrive(self, channel: HistoryChannel, payload: bytes, header: Header | None) -> None:
        """Take what was published on a channel."""
        if header is None or header.position is None:
            self._arrive_without_position(channel, payload, header)
        elif channel.state is State.LIVE:
            if channel.is_followed_by(header):
                self._accept(channel, Publication(payload, header.kind, header.position))
            else:
                channel.wait(Live(payload, header), MAX_WAITING_BYTES)
                self._catch_up(channel)
        elif channel.state is State.CATCHING_UP and channel.position is not None:
            channel.wait(Live(payload, header), MAX_WAITING_BYTES)
        # Else it is in what is being read.

    def _arrive_without_position(
        self, channel: HistoryChannel, payload: bytes, header: Header | None
    ) -> None:
        # Others have published it by a plain PUBLISH: it has no place in the history.
        if payload == self._heartbeat:
            return
        if channel.state is State.CATCHING_UP and channel.position is not None:
            channel.wait(Live(payload, header), MAX_WAITING_BYTES)
        elif channel.state is State.LIVE:
            if channel.joining:
                # They have asked before it came, so they are to get it.
                self._recovery.serve(channel, len(channel.joining))
            if channel.audiences:
                kind = Kind.TEXT if header is None else header.kind
                self._statistics.redis_messages += 1
                self._fanout.arrive(channel, Publication(payload, kind))

    def new_epoch(self, channel: HistoryChannel, event: NewEpoch) -> None:
        """Take note that another process has found the chain of a channel broken."""
        # Else what is being read says so too.
        if (
            channel.state is State.LIVE
            and channel.position is not None
            and event.position.epoch != channel.position.epoch
        ):
            self._begin_anew(channel, Outcome.BROKEN, event.position, None)
            self._recovery.enqueue(channel)

    def linger(self, channel: HistoryChannel) -> bool:
        """Keep a channel that nobody wants for a while, if that is of use; tell whether it is."""
        if channel.linger is not None:
            return True
        if channel.state is not State.LIVE:
            return False
        channel.linger = self._bus.loop.call_later(LINGER_SECONDS, self._lingered, channel)
        self._lingering[channel] = None
        if len(self._lingering) > MAX_LINGERING:
            oldest = next(iter(self._lingering))
            self._end_lingering(oldest)
        return True

    def _lingered(self, channel: HistoryChannel) -> None:
        channel.linger = None
        self._end_lingering(channel)

    def _end_lingering(self, channel: HistoryChannel) -> None:
        self._stop_lingering(channel)
        if not channel.is_wanted:
            channel.state = State.AWAY
            self._changed(channel)

    def _stop_lingering(self, channel: HistoryChannel) -> None:
        timer, channel.linger = channel.linger, None
        if timer is not None:
            self._bus.loop.timers.cancel(timer)
        self._lingering.pop(channel, None)

    def turn_end(self) -> bool:
        """Let peers join; tell whether there are more."""
        return self._recovery.turn_end()

    def forget(self, channel: HistoryChannel) -> None:
        """Let go of a channel that is not subscribed any more."""
        self._stop_lingering(channel)
        self._empty.forget(channel)
        self._recovery.forget(channel)
        channel.start_over()
        self._memory.forget(channel)

    def disconnected(self, link: BusLink) -> None:
        """Take note that a connection is lost; each channel is told by the bus."""
        self._reader.disconnected(link)

    # Reading

    def _catch_up(self, channel: HistoryChannel) -> None:
        """Read what came after the last that was taken in, or where the channel is at all."""
        channel.state = State.CATCHING_UP
        channel.resumes = False
        question = channel.ask()
        since = channel.position
        if since is not None:
            self._reader.read(
                channel, since, partial(self._caught_up, channel, question), has_seen=True
            )
        else:
            wanted = oldest_wanted(question.joining.values())
            self._reader.read(channel, wanted, partial(self._found, channel, question, wanted))

    def _read_failed(self, channel: HistoryChannel, error: Exception) -> None:
        """Try again in a while: Redis is there, and does not let the history be read."""
        logger.error('Redis does not give the history of %r: %s', channel.name, error)
        subscribed = channel.subscribed, channel.tells_events
        channel.start_over()
        channel.subscribed, channel.tells_events = subscribed
        for request in channel.requests():
            request.delay(Delay.REFUSED)
        self._bus.loop.call_later(RETRY_SECONDS, self._changed, channel)

    # Where a channel is that this process knows nothing of

    def _found(
        self,
        channel: HistoryChannel,
        question: Question,
        wanted: Position | None,
        reading: Reading,
    ) -> None:
        if channel.state is not State.CATCHING_UP:
            return
        channel.begin_at(reading.newest, reading.kind)
        self._go_live(channel)
        self._answer(channel, question, reading)
        if wanted is not None and wanted.epoch == reading.newest.epoch:
            self._recovery.take_earlier(channel, wanted, reading)

    def _go_live(self, channel: HistoryChannel) -> None:
        channel.state = State.LIVE
        channel.vain_reads = 0
        self._empty.note(channel)

    def _answer(self, channel: HistoryChannel, question: Question, reading: Reading) -> None:
        """Let those join who asked when a read was begun: they know what is kept."""
        asked = channel.answered(question)
        if channel.state is State.LIVE:
            for request in asked.values():
                self._recovery.take_kept(channel, request, reading.kept)
        channel.joining = {**asked, **channel.joining}
        self._recovery.enqueue(channel)

    # What came while this process did not hear

    def _caught_up(self, channel: HistoryChannel, question: Question, reading: Reading) -> None:
        if channel.state is not State.CATCHING_UP:
            return
        before = channel.position
        if reading.outcome is ReadOutcome.OK:
            self._accept_entries(channel, reading.entries, reading.newest.epoch)
        else:
            position = channel.position_before_waiting(reading.newest)
            # Where messages wait that go on from there, the kept one is among them.
            kept = reading.kept if position is reading.newest else None
            self._begin_anew(channel, Outcome(reading.outcome), position, kept)
        is_live = self._take_waiting(channel, reading.newest)
        if channel.position is before:
            channel.vain_reads += 1
        if not is_live and channel.vain_reads > MAX_VAIN_READS:
            logger.error('the history of %r does not hang together', channel.name)
            channel.clear_waiting()
            self._begin_anew(channel, Outcome.BROKEN, reading.newest, reading.kept)
            is_live = True
        if is_live:
            self._go_live(channel)
        self._answer(channel, question, reading)
        if not is_live:
            self._catch_up(channel)

    def _accept_entries(
        self, channel: HistoryChannel, entries: Sequence[Entry], epoch: str
    ) -> None:
        for entry in entries:
            newest = channel.position
            assert newest is not None
            if entry.offset != newest.offset + 1 or entry.tag_before != newest.tag:
                return
            self._accept(channel, publication_of(entry, epoch))

    def _take_waiting(self, channel: HistoryChannel, newest: Position) -> bool:
        """Go on with what came live meanwhile; tell whether nothing is missing in between."""
        overflowed = channel.overflowed
        waiting = channel.clear_waiting()
        for place, item in enumerate(waiting):
            position = item.position
            if item.header is None or position is None:
                kind = Kind.TEXT if item.header is None else item.header.kind
                self._fan_out(channel, Publication(item.payload, kind))
            elif channel.is_followed_by(item.header):
                self._accept(channel, Publication(item.payload, item.header.kind, position))
            elif not channel.has_taken(position) and _comes_before(position, newest):
                # What lies between is still to be read.
                for later in waiting[place:]:
                    channel.wait(later, MAX_WAITING_BYTES)
                return False
            # Else it was read already; or it is of another epoch, of which a gap was told.
        return channel.has_taken(newest) and not overflowed

    def _accept(self, channel: HistoryChannel, publication: Publication) -> None:
        channel.accept(publication)
        if not channel.keeps_all:
            tail = channel.tail
            if len(tail.publications) > channel.history_size or tail.bytes > self._max_replay_bytes:
                tail.shrink(max_publications=channel.history_size, max_bytes=self._max_replay_bytes)
            self._memory.note(channel)
        self._fan_out(channel, publication)

    def _fan_out(self, channel: HistoryChannel, publication: Publication) -> None:
        if channel.audiences:
            self._statistics.redis_messages += 1
            self._fanout.arrive(channel, publication)

    def _begin_anew(
        self, channel: HistoryChannel, cause: Outcome, position: Position, kept: bytes | None
    ) -> None:
        """Tell all of a gap: what came up to a position cannot be had."""
        logger.warning('a gap in %r (%s): going on after %s', channel.name, cause, position)
        self._statistics.gaps[cause] += 1
        channel.look_again()
        channel.begin_at(position)
        self._memory.note(channel)
        if kept == self._heartbeat:
            kept = None
        if channel.audiences:
            self._fanout.tell_gap(channel, Gap(cause, position, kept))


def _comes_before(position: Position, newest: Position) -> bool:
    return position.epoch == newest.epoch and position.offset <= newest.offset

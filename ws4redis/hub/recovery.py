"""Let peers join channels with a history: with what they missed, or with the kept message.

Who names a position is served from the tail; who has seen less than that holds waits for one read
that serves all of them. It is done in turns, so that ten thousand who come back at once leave room
for others.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from ws4redis.broker.history import Outcome as ReadOutcome
from ws4redis.broker.history import Position, Reading
from ws4redis.hub.channel import Outcome, Question, Request
from ws4redis.hub.history_channel import HistoryChannel, State, oldest_wanted
from ws4redis.hub.publication import publication_of
from ws4redis.hub.tail import Tail, TailMemory

if TYPE_CHECKING:
    from ws4redis.hub.bus import Bus
    from ws4redis.hub.fanout import Fanout
    from ws4redis.hub.history_reader import HistoryReader
    from ws4redis.hub.peer import Peer
    from ws4redis.hub.statistics import Statistics

logger = logging.getLogger('ws4redis')

# For this long a turn lets peers join, so many of a channel before it is another's turn.
TURN_SECONDS = 0.003
STEP_PEERS = 50


class Recovery:
    """Let peers join channels that are live.

    ``catch_up`` is called with a channel that turns out not to be where this process takes it to
    be; ``changed`` with one that perhaps nobody wants any more.
    """

    def __init__(
        self,
        bus: Bus,
        fanout: Fanout,
        reader: HistoryReader,
        memory: TailMemory,
        *,
        statistics: Statistics,
        heartbeat: bytes | None,
        max_replay_bytes: int,
        catch_up: Callable[[HistoryChannel], object],
        changed: Callable[[HistoryChannel], object],
    ) -> None:
        self._bus = bus
        self._fanout = fanout
        self._reader = reader
        self._memory = memory
        self._statistics = statistics
        self._heartbeat = heartbeat
        self._max_replay_bytes = max_replay_bytes
        self._catch_up = catch_up
        self._changed = changed
        # Channels that some are about to join, in the order in which they are served.
        self._to_serve: OrderedDict[HistoryChannel, None] = OrderedDict()

    def enqueue(self, channel: HistoryChannel) -> None:
        """Let those who are about to join a channel do so, in this turn or a later one."""
        if channel.joining or channel.returning:
            self._to_serve[channel] = None

    def forget(self, channel: HistoryChannel) -> None:
        self._to_serve.pop(channel, None)

    def take_kept(self, channel: HistoryChannel, request: Request, kept: bytes | None) -> None:
        """Give one who joins the kept message of this very moment, if it is to get that."""
        if request.since is not None and not request.cause.is_gap:
            cause = channel.cause_against(request.since)
            if cause is Outcome.OK:
                return
            request.note_gap(cause)
        # One that was found before stays, though nothing is missing since this process named a
        # position: it was not told yet.
        request.since = channel.position
        request.kept = None if kept == self._heartbeat else kept

    def turn_end(self) -> bool:
        """Let peers join for as long as a turn may; tell whether there are more."""
        if not self._to_serve:
            return False
        clock = self._bus.loop.timers.clock
        deadline = clock() + TURN_SECONDS
        while self._to_serve:
            channel, _ = self._to_serve.popitem(last=False)
            if channel.state is State.LIVE and self.serve(channel, STEP_PEERS):
                self._to_serve[channel] = None
            if clock() >= deadline:
                break
        return bool(self._to_serve)

    def serve(self, channel: HistoryChannel, number: int) -> bool:
        """Let some peers join; tell whether there are more that can."""
        # What has arrived and was not delivered yet is in what they get now.
        self._fanout.settle(channel)
        newcomers: dict[Peer, Request] = {}
        # Who names what this process has not heard of may be ahead of it.
        doubted: dict[Peer, Request] = {}
        for peer in list(islice(channel.joining, number)):
            request = channel.joining.pop(peer, None)
            if request is None:
                # An earlier one of them has ended it.
                continue
            if request.since is not None:
                cause = channel.cause_against(request.since)
                if cause.may_be_ours and request.is_open:
                    doubted[peer] = request
                    continue
                if cause is not Outcome.OK:
                    request.since = request.kept = None
                    request.note_gap(cause)
            if request.since is None:
                newcomers[peer] = request
            elif channel.has_in_memory(request.since):
                self._let_join(channel, peer, request)
            else:
                channel.returning[peer] = request
        if newcomers:
            self._ask_for_kept(channel, newcomers)
        if doubted:
            channel.joining = {**doubted, **channel.joining}
            self._catch_up(channel)
            return False
        if channel.returning and channel.earlier is None:
            self._read_earlier(channel)
        if channel.keeps_all and not channel.joining:
            channel.keeps_all = False
            channel.tail.shrink(
                max_publications=channel.history_size, max_bytes=self._max_replay_bytes
            )
            self._memory.note(channel)
        return bool(channel.joining)

    def _let_join(self, channel: HistoryChannel, peer: Peer, request: Request) -> None:
        if request.comes_back:
            self._statistics.recoveries[request.cause] += 1
        try:
            request.answer(channel.joined(request))
        except Exception:
            logger.exception('letting %r join %r failed', peer, channel.name)
            peer.lost()
        # Sending may have ended it; who has ended is in no channel.
        if channel.still_takes(peer):
            channel.add(peer)
        elif not channel.is_wanted:
            self._changed(channel)

    def _ask_for_kept(self, channel: HistoryChannel, newcomers: dict[Peer, Request]) -> None:
        # Letting others join may have ended some.
        newcomers = {peer: newcomers[peer] for peer in newcomers if channel.still_takes(peer)}
        question = channel.ask_for(newcomers)
        self._bus.send(
            channel,
            *(b'GET', channel.name),
            replied=partial(self._kept_told, channel, question),
            refused=partial(self._kept_refused, channel, question),
        )

    def _kept_refused(self, channel: HistoryChannel, question: Question, error: Exception) -> None:
        logger.error('Redis does not give the message kept as %r: %s', channel.name, error)
        self._kept_told(channel, question, None)

    def _kept_told(self, channel: HistoryChannel, question: Question, kept: bytes | None) -> None:
        if channel.state is State.AWAY:
            return
        asked = channel.answered(question)
        if channel.state is State.LIVE:
            for request in asked.values():
                request.since = channel.position
                request.kept = None if kept == self._heartbeat else kept
            self._to_serve[channel] = None
        channel.joining = {**asked, **channel.joining}

    # What is older than the tail

    def _read_earlier(self, channel: HistoryChannel) -> None:
        wanted = oldest_wanted(channel.returning.values())
        assert wanted is not None
        channel.earlier = Tail(wanted.offset, '')
        self._reader.read(
            channel, wanted, partial(self._earlier_told, channel, channel.earlier, wanted)
        )

    def _earlier_told(
        self, channel: HistoryChannel, earlier: Tail, since: Position, reading: Reading
    ) -> None:
        if channel.earlier is not earlier:
            return
        if channel.state is State.LIVE:
            self.take_earlier(channel, since, reading)
        else:
            # It is verified meanwhile; when that is done they are looked at again.
            channel.earlier = None
            channel.look_again()

    def take_earlier(self, channel: HistoryChannel, since: Position, reading: Reading) -> None:
        """Put what was read in front of the tail, or read on until it reaches to the tail."""
        newest = channel.position
        assert newest is not None
        if reading.newest.epoch != newest.epoch or reading.outcome is ReadOutcome.BROKEN:
            channel.earlier = None
            channel.look_again()
            if reading.newest.epoch != newest.epoch:
                self._catch_up(channel)
            else:
                self._to_serve[channel] = None
            return
        earlier = channel.earlier
        if earlier is None:
            earlier = channel.earlier = Tail(since.offset, '')
        end = earlier.end
        self._extend(channel, earlier, reading, newest.epoch)
        if end < earlier.end < channel.tail.before:
            on = Position(newest.epoch, earlier.end)
            self._reader.read(channel, on, partial(self._earlier_told, channel, earlier, on))
            return
        channel.earlier = None
        if earlier.end == channel.tail.before and earlier.publications:
            channel.tail.extend_back(earlier)
            channel.keeps_all = True
        elif earlier.end < channel.tail.before:
            channel.floor, channel.floor_cause = channel.tail.before, Outcome.TRIMMED
        channel.look_again()
        if channel.joining:
            self._to_serve[channel] = None

    def _extend(self, channel: HistoryChannel, earlier: Tail, reading: Reading, epoch: str) -> None:
        for entry in reading.entries:
            if entry.offset > channel.tail.before:
                break
            follows = entry.offset == earlier.end + 1
            if earlier.publications:
                follows = follows and entry.tag_before == earlier.tag_at(entry.offset - 1)
            if not follows:
                earlier.begin_at(entry.offset - 1, entry.tag_before)
                channel.floor, channel.floor_cause = earlier.before, Outcome.TRIMMED
            elif not earlier.publications:
                earlier.tag_before = entry.tag_before
            earlier.append(publication_of(entry, epoch))
            while earlier.bytes > self._max_replay_bytes and len(earlier.publications) > 1:
                earlier.drop_first()
                channel.floor, channel.floor_cause = earlier.before, Outcome.BEHIND

"""The control channel as a process hears it: it acts on each message once, and misses none."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ws4redis.broker.control import (
    HISTORY_SECONDS,
    HISTORY_SIZE,
    ControlMessage,
    Do,
    control_keys,
    messages_in,
    newest_command,
    read_command,
)
from ws4redis.broker.history import MAX_ENTRIES_PER_READ, Entry, Outcome, Position, parse_reading
from ws4redis.broker.link import error_code, ignore
from ws4redis.broker.scripts import script_of
from ws4redis.hub.identity import Identity
from ws4redis.protocol.client.codes import comes_back
from ws4redis.protocol.end_codes import EndCode

if TYPE_CHECKING:
    from ws4redis.broker.publication import Command
    from ws4redis.hub.bus import Bus
    from ws4redis.hub.bus_link import BusLink

logger = logging.getLogger('ws4redis')

# Clocks of hosts differ by so much at most.
CLOCK_SKEW_SECONDS: Final = 5.0
# How long a handshake may take that has asked who somebody is before a message came.
RECENT_SECONDS: Final = 60.0
# So many handshakes wait for it; while Redis is away, the oldest have given up long since.
MAX_AWAITING: Final = 16384


def concerns(message: ControlMessage, identity: Identity) -> bool:
    """Tell whether a message means an identity."""
    if message.session is not None and message.session != identity.session_digest:
        return False
    if message.user is None and message.user_id is None:
        return message.session is not None or identity.session_digest is not None
    return (message.user is not None and message.user == identity.user) or (
        message.user_id is not None and message.user_id == identity.user_id
    )


def _ends_session(message: ControlMessage) -> bool:
    """Tell whether a message says that a session has ended, or is to stay away."""
    code = message.code or EndCode.DISCONNECTED
    return message.do == Do.DISCONNECT and (code == EndCode.SESSION_ENDED or not comes_back(code))


class Ended:
    """What has ended lately, for those who show a ticket, and for handshakes under way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By wall clock: before that, something may have ended of which nothing is known here.
        self.known_since = float('inf')
        self._recent: deque[tuple[float, ControlMessage]] = deque()
        # The latest message's time for each session, user and primary key.
        self._latest: dict[tuple[str, str], float] = {}
        self._everybody = 0.0

    def note(self, message: ControlMessage) -> None:
        now = self._clock()
        self._recent.append((now, message))
        while self._recent[0][0] < now - RECENT_SECONDS:
            self._recent.popleft()
        self.note_past(message)

    def note_past(self, message: ControlMessage) -> None:
        """Take note of a message that concerns no handshake under way."""
        names = [
            (kind, name)
            for kind, name in (
                ('user', message.user),
                ('id', message.user_id),
                ('session', message.session),
            )
            if name is not None
        ]
        if not names:
            self._everybody = max(self._everybody, message.at)
        if message.session is not None and _ends_session(message):
            names.append(('ended', message.session))
        for name in names:
            # The latest goes to the end, so that the oldest are found at the beginning.
            self._latest[name] = max(self._latest.pop(name, 0.0), message.at)
        self._forget_old()

    def _forget_old(self) -> None:
        until = time.time() - HISTORY_SECONDS
        while self._latest:
            oldest = next(iter(self._latest))
            if self._latest[oldest] >= until:
                return
            del self._latest[oldest]

    def since(self, moment: float) -> list[ControlMessage]:
        """Return what came after a moment of the loop's clock."""
        messages = []
        for came, message in reversed(self._recent):
            if came < moment:
                break
            messages.append(message)
        return messages

    def session_has_ended(self, digest: str) -> bool:
        """Tell whether a session is known to have ended, or is to stay away."""
        return ('ended', digest) in self._latest

    def has_ended(self, identity: Identity, granted_at: float) -> bool:
        """Tell whether what was granted at a time may have ended since; when in doubt, it has."""
        # Nothing was granted in the future, whatever a clock that is ahead has said.
        since = min(granted_at, time.time()) - CLOCK_SKEW_SECONDS
        if since < self.known_since or since <= self._everybody:
            return True
        names = (
            ('user', identity.user),
            ('id', identity.user_id),
            ('session', identity.session_digest),
        )
        return any(
            name is not None and self._latest.get((kind, name), 0.0) >= since
            for kind, name in names
        )


class Control:
    """Read the control channel on the bus.

    ``publish`` is the command that publishes here. ``apply`` takes each message, in order;
    ``apply_past`` those that were published after this process began, and before it could read.
    ``unsure`` is called when messages may have been missed, ``missed`` when some were. All of it
    runs in the loop.
    """

    def __init__(
        self,
        bus: Bus,
        prefix: str,
        *,
        publish: bytes,
        clock: Callable[[], float],
        apply: Callable[[ControlMessage], object],
        apply_past: Callable[[ControlMessage], object],
        unsure: Callable[[], object],
        missed: Callable[[], object],
    ) -> None:
        self.ended = Ended(clock)
        self._bus = bus
        self._link: BusLink | None = None
        self._prefix = prefix
        self._publish = publish
        self._name = control_keys(prefix).plain
        self._apply = apply
        self._apply_past = apply_past
        self._unsure = unsure
        self._missed = missed
        # The tags of the messages that were acted upon, as many as the stream holds.
        self._taken: dict[str, None] = {}
        # Whether the stream is read from its beginning, where there may be others besides.
        self._starts_over = False
        self._position: Position | None = None
        self._began = time.time()
        self._is_reading = False
        self._rang = False
        # Whether all that was published before this connection was made has been read.
        self._is_current = False
        # Whether Redis refused something on this connection.
        self._is_refused = False
        self._complaints: set[str] = set()
        self._awaiting: deque[Callable[[], object]] = deque(maxlen=MAX_AWAITING)
        bus.own_listeners[self._name] = self

    @property
    def is_current(self) -> bool:
        """Tell whether all that has ended until now is known here."""
        return self._is_current and not self._is_refused

    def when_current(self, done: Callable[[], object]) -> None:
        """Call ``done`` as soon as all that has ended is known here; at once where it is."""
        if self.is_current:
            done()
        else:
            self._awaiting.append(done)

    def try_again(self) -> None:
        """Begin anew where Redis refused something: what is published is found all the same."""
        if self._is_refused and self._link is not None and not self._is_reading:
            self.connected(self._link)

    # What the bus tells

    def connected(self, link: BusLink) -> None:
        self._link = link
        self._is_refused = False
        link.subscribe(self._name, confirmed=ignore, refused=self._refused)
        self._read()

    def disconnected(self, link: BusLink) -> None:
        if link is not self._link:
            return
        self._link = None
        self._is_reading = self._rang = self._is_current = False

    def heard(self, payload: bytes) -> None:
        # It only rings: what it says is read.
        if self._is_reading:
            self._rang = True
        elif self._link is not None:
            self._read()

    # Reading

    def _read(self) -> None:
        link = self._link
        assert link is not None
        self._is_reading = True
        self._rang = False
        command = read_command(self._prefix, self._position, publish=self._publish)
        link.send(
            *command,
            replied=partial(self._replied, link),
            refused=partial(self._script_refused, link, command),
        )

    def _script_refused(self, link: BusLink, command: Command, error: Exception) -> None:
        if error_code(error) == 'NOSCRIPT':
            with_text = script_of(command).with_text(command)
            link.send(
                *with_text,
                replied=partial(self._replied, link),
                refused=partial(self._reading_refused, link),
            )
        else:
            self._reading_refused(link, error)

    def _refused(self, error: Exception) -> None:
        self._is_refused = True
        passes = self._bus.listening_refused(error)
        if not passes and str(error) not in self._complaints:
            self._complaints.add(str(error))
            logger.error(
                'Redis refuses the control channel: %s; logouts reach this process by the sweep '
                'alone',
                error,
            )

    def _reading_refused(self, link: BusLink, error: Exception) -> None:
        if link is not self._link:
            return
        self._is_reading = self._is_current = False
        self._refused(error)

    # The past of a process that has just begun

    def _read_past(self, link: BusLink, newest: Position) -> None:
        """Read what was there when this process began to listen; later ones come from ``newest``.

        In this order, since a message that comes between the two is then found by both.
        """
        link.send(
            *newest_command(self._prefix),
            replied=partial(self._past_read, link, newest),
            refused=partial(self._past_refused, link, newest),
        )

    def _past_refused(self, link: BusLink, newest: Position, error: Exception) -> None:
        self._position = newest
        self._reading_refused(link, error)

    def _past_read(self, link: BusLink, newest: Position, entries: Sequence[Any]) -> None:
        if link is not self._link:
            return
        self._position = newest
        past: list[ControlMessage] = []
        for entry_id, names_and_values in reversed(entries):
            fields = dict(zip(names_and_values[::2], names_and_values[1::2], strict=True))
            if int(entry_id.partition(b'-')[0]) <= newest.offset:
                self._note_taken(fields.get(b't', b'').decode(errors='replace'))
                past += messages_in([fields.get(b'd', b'')])
        now = time.time()
        if len(entries) < MAX_ENTRIES_PER_READ:
            self.ended.known_since = now - HISTORY_SECONDS
        else:
            self.ended.known_since = past[0].at if past else now
        for message in past:
            self.ended.note_past(message)
            if self._may_concern(message):
                self._apply_past(message)
        self._go_on(link, newest)

    def _may_concern(self, message: ControlMessage) -> bool:
        """Tell whether connections of this process may be meant, none of which is older than it."""
        return message.at >= self._began - CLOCK_SKEW_SECONDS

    # What is read afterwards

    def _replied(self, link: BusLink, reply: Sequence[Any]) -> None:
        if link is not self._link:
            return
        reading = parse_reading(reply)
        if self._position is None:
            self._read_past(link, reading.newest)
            return
        self._position = reading.newest
        if reading.outcome is Outcome.TRIMMED and not self._starts_over:
            self._note_loss()
        if reading.outcome in (Outcome.EPOCH, Outcome.BROKEN):
            self._note_doubt(reading.outcome)
            # A Redis that has lost something gives its numbers again. So what it holds is read
            # from the beginning, and told from what was acted upon by the tags.
            self._starts_over = True
            self._position = Position(reading.newest.epoch, 0)
        elif reading.entries:
            last = reading.entries[-1]
            self._position = Position(reading.newest.epoch, last.offset, last.tag)
            for entry in reading.entries:
                self._take(entry)
        self._go_on(link, reading.newest)

    def _note_loss(self) -> None:
        # A look-up does not find whom a project has disconnected, or unsubscribed.
        logger.warning('control messages were missed: all connections of users are ended')
        self.ended.known_since = time.time()
        self._missed()

    def _note_doubt(self, outcome: Outcome) -> None:
        logger.warning('control messages may have been missed (%s): all is checked', outcome)
        self.ended.known_since = time.time()
        self._unsure()

    def _go_on(self, link: BusLink, newest: Position) -> None:
        """Read what is left; else all is known, and those who wait for that go on."""
        if link is not self._link:
            # What was applied has cost the connection.
            return
        assert self._position is not None
        self._is_reading = False
        if self._rang or self._position.offset < newest.offset:
            self._read()
        else:
            self._is_current = True
            self._starts_over = False
        if self.is_current:
            awaiting = list(self._awaiting)
            self._awaiting.clear()
            for done in awaiting:
                done()

    def _take(self, entry: Entry) -> None:
        if entry.tag in self._taken:
            return
        self._note_taken(entry.tag)
        for message in messages_in([entry.payload]):
            if not self._starts_over or self._may_concern(message):
                self.ended.note(message)
                self._apply(message)
            else:
                self.ended.note_past(message)

    def _note_taken(self, tag: str) -> None:
        self._taken[tag] = None
        if len(self._taken) > HISTORY_SIZE:
            del self._taken[next(iter(self._taken))]

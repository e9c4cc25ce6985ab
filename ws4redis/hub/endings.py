"""What was granted ends: whom a control message means, and what a look-up found out.

Hub and look-ups meet here. The look-ups themselves, which ask the session store and the database,
are the business of others: see :class:`Checks`.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ws4redis.broker.control import ControlMessage, Do
from ws4redis.hub.control import Control, concerns
from ws4redis.hub.identities import Identities
from ws4redis.hub.identity import Identity, digest_of
from ws4redis.protocol.end_codes import REASONS, EndCode
from ws4redis.protocol.frames import CloseCode

if TYPE_CHECKING:
    from ws4redis.hub.hub import Hub
    from ws4redis.hub.peer import Peer

logger = logging.getLogger('ws4redis')

TICK_SECONDS: Final = 0.5
# So many look-ups share one call in the pool, so that others get their turn there.
BATCH: Final = 50
# Those who are new are asked about in one question; in a storm there are thousands a second.
NEW_BATCH: Final = 500
# A turn ends so many connections, which is about 5 ms of work.
ENDS_PER_TURN: Final = 200
# So many moments may be noted beyond what is needed: of identities that have gone, mostly.
SPARE_MOMENTS: Final = 1000


class Verdict(NamedTuple):
    """What a look-up found out of one identity.

    ``code`` is that with which its connections end, 0: they stay. ``check_at`` is when to look
    again, by wall clock; None: whenever the sweep does. ``failed``: nothing was found out.
    """

    code: int = 0
    check_at: float | None = None
    failed: bool = False


class Checks(Protocol):
    """Look identities up. Both run in the pool and may block; neither raises."""

    def verdicts(self, identities: Sequence[Identity]) -> list[Verdict]: ...

    def expiries(self, identities: Sequence[Identity]) -> list[Verdict]:
        """Find out when sessions expire, where one question answers that for all of them."""


class Endings:
    """Know in whose name connections are open, and end them when that ends."""

    def __init__(
        self,
        hub: Hub,
        checks: Checks,
        *,
        prefix: str,
        publish: bytes,
        sweep_seconds: float | None,
    ) -> None:
        self.identities: Identities[Peer] = Identities()
        self._hub = hub
        self._checks = checks
        self._prefix = prefix
        self._sweep_seconds = sweep_seconds
        self.control = Control(
            hub.bus,
            prefix,
            publish=publish,
            clock=hub.loop.timers.clock,
            apply=self._apply,
            apply_past=self._apply_past,
            unsure=self._check_all,
            missed=self._end_all,
        )
        # By wall clock, when was asked who they are, until the control channel has been read.
        self._early: dict[Identity, float] = {}
        # By the loop's clock, when messages may have been lost, and when some were.
        self._doubted_at = self._lost_at = -math.inf
        # Those to look up at once; those that are new; those whose turn it is.
        self._urgent: dict[Identity, None] = {}
        self._new: dict[Identity, None] = {}
        self._swept: dict[Identity, None] = {}
        # Whether those who are new have waited long enough for others.
        self._is_new_due = False
        self._to_sweep: deque[Identity] = deque()
        self._sweep_credit = 0.0
        # By wall clock: when tokens end, and when to ask about sessions again.
        self._due: list[tuple[float, int, Identity]] = []
        # The next of these moments for each identity; any other one of it does not count.
        self._next_look: dict[Identity, float] = {}
        self._order = itertools.count()
        self._is_looking = False

    def start(self) -> None:
        """Begin to look after time. Called in the loop."""
        self._tick()

    # Connections

    def identify(self, peer: Peer, identity: Identity, asked_at: float) -> None:
        """Note in whose name a peer is open; ``asked_at`` is when that was found out.

        What ended between the two ends it now.
        """
        if self.identities.add(peer, identity):
            self._take_note(identity)
        if not self.control.is_current:
            age = self._hub.loop.timers.clock() - asked_at
            self._early[identity] = time.time() - age
        for message in self.control.ended.since(asked_at):
            if concerns(message, identity):
                self._apply(message)
        # Its handshake was under way then, so it was not among those who were looked after.
        if asked_at <= self._lost_at:
            self._end_some([peer], CloseCode.TRY_AGAIN_LATER, _UNKNOWN)
        elif asked_at <= self._doubted_at:
            self._urgent[identity] = None
            self._look_up()

    def _take_note(self, identity: Identity) -> None:
        if identity.expires is not None:
            self._look_at(identity, identity.expires)
        if identity.session is not None:
            self._new[identity] = None

    def _look_at(self, identity: Identity, moment: float) -> None:
        if moment >= self._next_look.get(identity, math.inf):
            # What is found out then says when to look again.
            return
        self._next_look[identity] = moment
        heapq.heappush(self._due, (moment, next(self._order), identity))
        if len(self._due) > 2 * len(self.identities) + SPARE_MOMENTS:
            self._forget_moments()

    def _forget_moments(self) -> None:
        """Forget when to look at those who have gone, which may be weeks ahead."""
        looks = self._next_look.items()
        self._next_look = {each: moment for each, moment in looks if each in self.identities}
        self._due = [(moment, next(self._order), each) for each, moment in self._next_look.items()]
        heapq.heapify(self._due)

    def connections_of(self, *, user: str | None = None, session: str | None = None) -> list[Peer]:
        """Return the connections of a user by name, of a session by its key."""
        matching = self.identities.matching(user=user, session=digest_of(session))
        return self.identities.connections_of(matching)

    # What the control channel says

    def _apply(self, message: ControlMessage) -> None:
        if message.do == Do.CHECK_SESSIONS:
            self._urgent.update(dict.fromkeys(i for i in self.identities if i.session is not None))
            self._look_up()
            return
        identities = self.identities.matching(
            user=message.user, user_id=message.user_id, session=message.session
        )
        if message.do == Do.CHECK:
            self._urgent.update(dict.fromkeys(identities))
            self._look_up()
        elif message.do == Do.DISCONNECT:
            self._end(identities, message.code or EndCode.DISCONNECTED, message.reason)
        elif message.do == Do.UNSUBSCRIBE and message.channel is not None:
            for peer in self.identities.connections_of(identities):
                self._unsubscribe(peer, message)
        elif message.do != Do.UNSUBSCRIBE:
            logger.warning('a control message of an unknown kind: %.50s', message.do)

    def _apply_past(self, message: ControlMessage) -> None:
        """Act on a message that may be older than some of those whom it means."""
        meant = self.identities.matching(
            user=message.user, user_id=message.user_id, session=message.session
        )
        # No session comes again. But a user may have been admitted since, or by another clock.
        is_later = all(self._early.get(identity, 0.0) <= message.at for identity in meant)
        if message.session is not None or is_later:
            self._apply(message)
        else:
            self._apply(replace(message, do=Do.CHECK))

    def _unsubscribe(self, peer: Peer, message: ControlMessage) -> None:
        assert message.channel is not None
        # A connection that knows channels by names of its own is to tell its client.
        unsubscribed = getattr(peer, 'unsubscribe', None)
        try:
            if unsubscribed is not None:
                unsubscribed(message.channel, message.code, message.reason)
            else:
                self._hub.leave(peer, [message.channel])
        except Exception:
            # It must not hear on, and the others are to leave all the same.
            logger.exception('%r could not leave a channel, and is ended', peer)
            self._end_some([peer], CloseCode.INTERNAL_ERROR, '')

    def _check_all(self) -> None:
        self._doubted_at = self._hub.loop.timers.clock()
        self._urgent.update(dict.fromkeys(self.identities))
        self._look_up()

    def _end_all(self) -> None:
        """End all whom a message may have meant that is lost; who comes back is asked anew."""
        self._lost_at = self._hub.loop.timers.clock()
        self._end(list(self.identities), CloseCode.TRY_AGAIN_LATER, _UNKNOWN)

    def _end(self, identities: Iterable[Identity], code: int, reason: str = '') -> None:
        if not reason and code in REASONS:
            reason = REASONS[EndCode(code)]
        self._end_some(self.identities.connections_of(identities), code, reason)

    def _end_some(self, peers: list[Peer], code: int, reason: str) -> None:
        for peer in peers[:ENDS_PER_TURN]:
            try:
                peer.end(code, reason)
            except Exception:
                # The others are to end all the same.
                logger.exception('%r could not be ended', peer)
        rest = peers[ENDS_PER_TURN:]
        if rest:
            self._hub.loop.call_soon(self._end_some, rest, code, reason)

    # Time

    def _tick(self) -> None:
        self._hub.loop.call_later(TICK_SECONDS, self._tick)
        self.control.try_again()
        if self.control.is_current:
            self._early.clear()
        now = time.time()
        while self._due and self._due[0][0] <= now:
            moment, _, identity = heapq.heappop(self._due)
            if self._next_look.get(identity) != moment:
                continue
            del self._next_look[identity]
            if identity not in self.identities:
                continue
            if identity.expires is not None and identity.expires <= now:
                self._end([identity], EndCode.EXPIRED)
                continue
            if identity.expires is not None:
                self._look_at(identity, identity.expires)
            self._urgent[identity] = None
        self._sweep()
        self._is_new_due = True
        self._look_up()

    def _sweep(self) -> None:
        """Let as many be looked up as are due, so that each is once in a while."""
        if not self._sweep_seconds:
            return
        if not self._to_sweep:
            self._to_sweep.extend(self.identities)
        self._sweep_credit += len(self.identities) * TICK_SECONDS / self._sweep_seconds
        while self._to_sweep and self._sweep_credit >= 1:
            self._sweep_credit -= 1
            self._swept[self._to_sweep.popleft()] = None
        self._sweep_credit = min(self._sweep_credit, 1.0)

    # Looking up: one call at a time

    def _look_up(self) -> None:
        """Ask about the next ones: those that are urgent first.

        Those who are new are gathered until there are many, or the next tick: in a storm as many
        calls as clients would keep the interpreter from the loop.
        """
        if self._is_looking:
            return
        check: Callable[[Sequence[Identity]], list[Verdict]]
        if self._urgent:
            waiting, check, is_urgent = self._urgent, self._checks.verdicts, True
        elif self._new and (self._is_new_due or len(self._new) >= NEW_BATCH):
            waiting, check, is_urgent = self._new, self._checks.expiries, False
            self._is_new_due = False
        elif self._swept:
            waiting, check, is_urgent = self._swept, self._checks.verdicts, False
        else:
            return
        size = NEW_BATCH if waiting is self._new else BATCH
        batch = list(itertools.islice(waiting, size))
        for identity in batch:
            del waiting[identity]
        batch = [identity for identity in batch if identity in self.identities]
        if not batch:
            self._hub.loop.call_soon(self._look_up)
            return
        self._is_looking = True
        self._hub.loop.driver.submit(
            partial(self._looked_up, batch, is_urgent=is_urgent), check, batch
        )

    def _looked_up(
        self,
        batch: Sequence[Identity],
        verdicts: list[Verdict] | None,
        exc: BaseException | None,
        *,
        is_urgent: bool,
    ) -> None:
        self._is_looking = False
        if exc is not None:
            logger.error('identities could not be looked up', exc_info=exc)
        for identity, verdict in zip(batch, verdicts or [_FAILED] * len(batch), strict=True):
            if verdict.code:
                self._end([identity], verdict.code)
            elif verdict.failed and is_urgent:
                # There was a reason to ask. A client that comes back is asked anew.
                self._end([identity], CloseCode.TRY_AGAIN_LATER, 'your identity cannot be checked')
            elif verdict.check_at is not None:
                self._look_at(identity, verdict.check_at)
        self._look_up()


_FAILED = Verdict(failed=True)
_UNKNOWN: Final = 'what has ended meanwhile is not known'

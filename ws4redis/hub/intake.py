"""Intake: what peers send is taken in slices, and no faster than the rates allow.

One read may hold ten thousand messages. A websocket takes a few frames of it at once; the rest
waits in its protocol, and the websocket in a queue here, from which each turn of the loop serves as
many as fit into a few milliseconds. Meanwhile its socket is not read, so that a peer holds no more
than one read here, and TCP holds it back.

A peer that exceeds a rate is not closed, but read more slowly in the same way. Its allowances go
down with all that it sends; only when one is used up the clock is asked, and what has accrued since
the last time is added, at most half a second's worth. So a second's worth may come at once, and on
average the rate is kept.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ws4redis.hub.websocket import Paused, Phase

if TYPE_CHECKING:
    from ws4redis.hub.options import HubOptions
    from ws4redis.hub.websocket import WebSocket
    from ws4redis.loop.loop import Loop

logger = logging.getLogger('ws4redis')

#: How much of a turn goes to what was left over; the others wait no longer for their share.
TURN_SECONDS = 0.002
#: A sender that is too fast rests at least so long: timers cost something, too.
SHORTEST_REST_SECONDS = 0.01
BURST_SECONDS = 0.5
LOG_INTERVAL_SECONDS = 60.0


@dataclass(slots=True)
class Allowance:
    """What a peer may still send."""

    messages: float
    bytes: float
    pings: float
    refilled_at: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Bound what a peer may send: so much a second, and so much at once."""

    setting: str
    allowance: str
    per_second: float
    burst: float

    @classmethod
    def of(cls, setting: str, allowance: str, per_second: float | None) -> Rate:
        if per_second is None:
            return cls(setting, allowance, 0.0, math.inf)
        return cls(setting, allowance, per_second, max(1.0, per_second * BURST_SECONDS))


class Intake:
    """Serve websockets of which something is left over, and slow down those that are too fast."""

    def __init__(self, loop: Loop, options: HubOptions) -> None:
        self._loop = loop
        self._rates = (
            Rate.of(
                'WS4REDIS_MAX_MESSAGES_PER_SECOND',
                'messages',
                options.max_messages_per_second,
            ),
            Rate.of('WS4REDIS_MAX_BYTES_PER_SECOND', 'bytes', options.max_bytes_per_second),
            Rate.of('WS4REDIS_MAX_PINGS_PER_SECOND', 'pings', options.max_pings_per_second),
        )
        self._bursts = tuple(rate.burst for rate in self._rates)
        # Infinity remains what it is, whatever is taken off.
        is_bounded = any(burst < math.inf for burst in self._bursts)
        self._unbounded = None if is_bounded else self._full()
        # In the order in which they are served.
        self._waiting: OrderedDict[WebSocket, None] = OrderedDict()
        self._logged_at = -math.inf

    def allowance(self) -> Allowance:
        """Return a full allowance for a peer that begins to send."""
        return self._unbounded or self._full()

    def _full(self) -> Allowance:
        messages, size, pings = self._bursts
        return Allowance(messages, size, pings, self._loop.timers.clock())

    def charge(self, websocket: WebSocket, *, size: int) -> None:
        """Count a message that did not come over the websocket itself."""
        allowance = websocket.allowance
        if allowance is None:
            allowance = websocket.allowance = self.allowance()
        allowance.messages -= 1
        allowance.bytes -= size
        if allowance.messages <= 0 or allowance.bytes <= 0:
            self.hold_up(websocket, allowance)

    def forget_rested(self, websocket: WebSocket) -> None:
        """Let go of an allowance that is full again: pongs make one for every websocket."""
        allowance = websocket.allowance
        if allowance is not None and not websocket.paused & Paused.RATE:
            self._refill(allowance)
            if (allowance.messages, allowance.bytes, allowance.pings) == self._bursts:
                websocket.allowance = None

    def hold_up(self, websocket: WebSocket, allowance: Allowance) -> None:
        """Stop reading a websocket that sends too much, or of which something is left over."""
        if websocket.phase is Phase.OPEN:
            self._slow_down(websocket, allowance)
        if websocket.protocol.has_more and not websocket.paused & Paused.LEFTOVERS:
            websocket.set_paused(websocket.paused | Paused.LEFTOVERS)
            self._waiting[websocket] = None

    def resume(self, websocket: WebSocket) -> None:
        """Go on with what is left over of a websocket, which waited for something else."""
        # By way of a call, since this may come after the turn has asked whether there is more.
        self._loop.call_soon(self._enqueue, websocket)

    def _enqueue(self, websocket: WebSocket) -> None:
        self._waiting[websocket] = None

    def turn_end(self) -> bool:
        """Take slices of what is left over, each websocket in its turn; tell whether more is."""
        if not self._waiting:
            return False
        clock = self._loop.timers.clock
        deadline = clock() + TURN_SECONDS
        while self._waiting:
            websocket, _ = self._waiting.popitem(last=False)
            self._take_slice(websocket)
            if clock() >= deadline:
                break
        return bool(self._waiting)

    def _take_slice(self, websocket: WebSocket) -> None:
        if websocket.paused & ~Paused.LEFTOVERS:
            # Whoever holds it back lets it resume.
            return
        if websocket.protocol.has_more and websocket.phase is not Phase.CLOSED:
            try:
                websocket.take(b'')
            except Exception:
                logger.exception('handling what %r has sent failed', websocket)
                websocket.failed()
        if websocket.protocol.has_more and websocket.phase is not Phase.CLOSED:
            self._waiting[websocket] = None
        else:
            websocket.set_paused(websocket.paused & ~Paused.LEFTOVERS)

    # Rates

    def _slow_down(self, websocket: WebSocket, allowance: Allowance) -> None:
        rest, exceeded = self._refill(allowance)
        if exceeded is None or websocket.paused & Paused.RATE:
            return
        websocket.set_paused(websocket.paused | Paused.RATE)
        # Its answer may lie behind what is not read now.
        websocket.pinged_in_round = 0
        self._loop.call_later(rest, self._go_on, websocket, allowance)
        now = self._loop.timers.clock()
        if now - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._logged_at = now
            logger.warning('%r exceeds %s: it is read more slowly', websocket, exceeded.setting)

    def _refill(self, allowance: Allowance) -> tuple[float, Rate | None]:
        """Add what has accrued; return for how long to rest, and because of which rate."""
        now = self._loop.timers.clock()
        elapsed = now - allowance.refilled_at
        allowance.refilled_at = now
        rest, exceeded = 0.0, None
        for rate in self._rates:
            left = getattr(allowance, rate.allowance) + elapsed * rate.per_second
            setattr(allowance, rate.allowance, min(left, rate.burst))
            if left <= 0 and -left / rate.per_second >= rest:
                rest, exceeded = -left / rate.per_second, rate
        return max(rest, SHORTEST_REST_SECONDS), exceeded

    def _go_on(self, websocket: WebSocket, allowance: Allowance) -> None:
        if websocket.phase is not Phase.OPEN:
            return
        rest, exceeded = self._refill(allowance)
        if exceeded is not None:
            self._loop.call_later(rest, self._go_on, websocket, allowance)
        else:
            websocket.resume_reading(Paused.RATE)

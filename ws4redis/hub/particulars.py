"""What few peers have, and most of those not for long.

There may be a hundred thousand peers, so none has a slot for what it hardly ever needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws4redis.hub.messages import HeldBack
    from ws4redis.loop.timers import Timer


class Particulars:
    """The exceptions of one peer."""

    __slots__ = ('echo', 'farewell', 'held', 'timer')

    def __init__(self) -> None:
        # Whether it is sent back what it publishes.
        self.echo = False
        # How to close it once it is open.
        self.farewell: tuple[int, str] | None = None
        # Deliveries wait here while the subscriber sends what it wants to come first.
        self.held: HeldBack | None = None
        # What ends it if its peer does not.
        self.timer: Timer | None = None

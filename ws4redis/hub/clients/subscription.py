"""One subscription of a connection."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws4redis.loop.timers import Timer


class SubscriptionState(Enum):
    """The life of a subscription."""

    ASKED = auto()  # the policy decides
    JOINING = auto()  # Redis is asked for what was missed
    SUBSCRIBED = auto()
    ENDED = auto()  # its connection does not know it any more


class Subscription:
    """A channel, by its names for the client and in Redis, and what the client wants of it.

    ``is_server_side`` tells that the server subscribes the client by itself when it connects.
    """

    __slots__ = (
        *('_waiting', 'channel', 'is_revoked', 'is_server_side', 'name', 'state', 'timer'),
        'wants_joins',
    )

    def __init__(
        self, name: str, channel: str, *, wants_joins: bool = False, is_server_side: bool = False
    ) -> None:
        # Thousands of connections may have the same.
        self.name = sys.intern(name)
        self.channel = sys.intern(channel)
        self.wants_joins = wants_joins
        self.is_server_side = is_server_side
        self.state = SubscriptionState.ASKED
        # Whether it was ended before the client had an answer, and so never begins.
        self.is_revoked = False
        # Ends it when its token has expired.
        self.timer: Timer | None = None
        self._waiting: list[Callable[[], object]] | None = None

    @property
    def is_subscribed(self) -> bool:
        return self.state is SubscriptionState.SUBSCRIBED

    @property
    def is_settled(self) -> bool:
        return self.state in (SubscriptionState.SUBSCRIBED, SubscriptionState.ENDED)

    def when_settled(self, function: Callable[[], object]) -> None:
        """Call a function once the client has the answer to its wish to subscribe.

        So commands for one channel are done in their order.
        """
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(function)

    def settle(self, state: SubscriptionState) -> None:
        self.state = state
        waiting, self._waiting = self._waiting, None
        for function in waiting or ():
            function()

"""What a process counts: plain numbers, changed in the loop and read from anywhere."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Statistics:
    """Count handshakes, closes, messages and bytes of one process."""

    # Each attribute is counted where it happens. `messages_not_delivered` and
    # `messages_not_published` go by the code with which the websocket was closed that explains
    # them; see docs/reference/statistics.md.
    __slots__ = (
        'bytes_received',
        'bytes_sent',
        'closes',
        'connections',
        'connections_of_kind',
        'gaps',
        'handler_events',
        'handler_events_waiting',
        'handler_lag_seconds',
        'handshakes',
        'history_reads',
        'messages_not_delivered',
        'messages_not_published',
        'messages_published',
        'messages_received',
        'messages_sent',
        'recoveries',
        'redis_messages',
    )

    def __init__(self) -> None:
        # Open ones.
        self.connections: Counter[str] = Counter()
        self.connections_of_kind: Counter[str] = Counter()
        self.handshakes: Counter[int] = Counter()
        self.closes: Counter[int] = Counter()
        self.messages_received = 0
        self.bytes_received = 0
        self.messages_sent = 0
        self.bytes_sent = 0
        self.messages_not_delivered: Counter[int] = Counter()
        self.messages_not_published: Counter[int] = Counter()
        self.messages_published = 0
        self.redis_messages = 0
        # Of channels with a history: gaps that all of an audience was told, by their causes, what
        # became of those who came back with a position, and reads.
        self.gaps: Counter[str] = Counter()
        self.recoveries: Counter[str] = Counter()
        self.history_reads = 0
        # What handlers have seen, what they have yet to see, and how long the latest had waited.
        self.handler_events = 0
        self.handler_events_waiting = 0
        self.handler_lag_seconds = 0.0

    @property
    def messages_dropped(self) -> int:
        """Return how many messages were not delivered, or not published, in all."""
        return self.messages_not_delivered.total() + self.messages_not_published.total()

    def as_dict(self) -> dict[str, Any]:
        """Return all counts; handshakes by HTTP status, closes by close code.

        Safe in any thread: each number is read at once, and a counter is copied at once.
        """
        return {
            name: dict(value) if isinstance(value := getattr(self, name), Counter) else value
            for name in self.__slots__
        }

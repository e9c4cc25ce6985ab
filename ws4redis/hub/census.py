"""Say who is connected, when another process asks.

All that grows with the number of connections is done in the pool, and an answer has a bound.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final

from ws4redis.broker.census import (
    MAX_CONNECTIONS,
    MAX_USERS,
    Question,
    answer_commands,
    bell,
    newest_question_command,
    questions_command,
)
from ws4redis.broker.link import ignore
from ws4redis.hub.receiver import kind_of

if TYPE_CHECKING:
    from ws4redis.hub.bus_link import BusLink
    from ws4redis.hub.hub import Hub
    from ws4redis.hub.peer import Peer

logger = logging.getLogger('ws4redis')

MAX_CHANNELS: Final = 20


class Census:
    """Answer the questions of one hub. All of it runs in the loop, but for the ranking."""

    def __init__(self, hub: Hub, prefix: str, process: str) -> None:
        self._hub = hub
        self._prefix = prefix
        self._process = process
        self._link: BusLink | None = None
        self._last: bytes | None = None
        self._complained = False

    def start(self) -> None:
        """Listen from now on; called in the loop."""
        self._hub.bus.listen(bell(self._prefix).encode(), self)

    # What the bus tells

    def connected(self, link: BusLink) -> None:
        self._link = link
        link.subscribe(bell(self._prefix).encode(), confirmed=ignore, refused=self._refused)
        if self._last is None:
            link.send(
                *newest_question_command(self._prefix),
                replied=self._began,
                refused=self._refused,
            )

    def disconnected(self, link: BusLink) -> None:
        if link is self._link:
            self._link = None

    def heard(self, payload: bytes) -> None:
        if self._link is not None and self._last is not None:
            self._link.send(
                *questions_command(self._prefix, self._last),
                replied=self._asked,
                refused=self._refused,
            )

    def _began(self, entries: Sequence[Any]) -> None:
        # What was asked before is somebody else's.
        self._last = entries[0][0] if entries else b'0-0'

    def _refused(self, error: Exception) -> None:
        passes = self._hub.bus.listening_refused(error)
        if not passes and not self._complained:
            self._complained = True
            logger.warning('Redis refuses questions of the live page: %s', error)

    def _asked(self, entries: Sequence[Any]) -> None:
        for number, fields in entries:
            # A bell may ring again before the first answer has come.
            if self._last is not None and _order_of(number) <= _order_of(self._last):
                continue
            self._last = number
            try:
                question = Question.from_json(fields[1])
            except (ValueError, IndexError):
                continue
            self._look(number, question)

    # Answering

    def _look(self, number: bytes, question: Question) -> None:
        endings = self._hub.endings
        if endings is None:
            self._answer(number, [], users=0)
        elif question.user:
            self._answer(number, [question.user], users=None)
        else:
            self._hub.loop.driver.submit(
                partial(self._ranked, number), _rank, list(endings.identities), question.after
            )

    def _ranked(
        self, number: bytes, ranked: tuple[list[str], int] | None, exc: BaseException | None
    ) -> None:
        if ranked is None:
            logger.error('a question of the live page failed', exc_info=exc)
            return
        self._answer(number, ranked[0], users=ranked[1])

    def _answer(self, number: bytes, names: Sequence[str], *, users: int | None) -> None:
        connections: list[dict[str, Any]] = []
        for name in names:
            for peer in self._hub.connections_of(user=name):
                if len(connections) < MAX_CONNECTIONS:
                    connections.append(_line_of(peer, name))
        answer = {
            'process': self._process,
            'open': self._hub.open_count,
            'users': users,
            'names': list(names),
            'connections': connections,
        }
        if self._link is None:
            return
        for command in answer_commands(self._prefix, number, answer):
            self._link.send(*command, refused=self._refused)


def _order_of(number: bytes) -> tuple[int, int]:
    milliseconds, _, place = number.partition(b'-')
    return int(milliseconds), int(place)


def _rank(identities: Sequence[Any], after: str) -> tuple[list[str], int]:
    """Return the first users after a name, and how many users there are. Runs in the pool."""
    names = {identity.user for identity in identities if identity.user is not None}
    return nsmallest(MAX_USERS, (name for name in names if name > after)), len(names)


def _line_of(peer: Peer, user: str) -> dict[str, Any]:
    names = [channel.name.decode(errors='replace') for channel in peer.channels]
    return {
        'user': user,
        'since': peer.since,
        'address': getattr(getattr(peer, 'place', None), 'address', None),
        'transport': peer.transport,
        'kind': kind_of(peer),
        'channels': names[:MAX_CHANNELS],
        'more_channels': max(0, len(names) - MAX_CHANNELS),
        'queued_bytes': peer.queued_bytes,
    }

"""Commands for a Redis Cluster: which node gets them, and which have to be sent again.

No connection is used here: the clients, blocking or not, send the batches and hand in the replies.

A *unit* is what Redis does as a whole: one command, or several of one slot in a transaction. Where
Redis answers that another node has the slot (``MOVED``, ``ASK``), or that nobody can serve it now
(``TRYAGAIN``, ``CLUSTERDOWN``), it has done nothing of the unit, so that may be sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    TryAgainError,
)

from ws4redis.broker.publication import Command, in_transaction
from ws4redis.broker.slots import SlotsMap, slot_of
from ws4redis.settings.topologies import Node

NOTHING_DONE: Final = (MovedError, AskError, TryAgainError, ClusterDownError, MasterDownError)
FIRST_PAUSE_SECONDS: Final = 0.02
LAST_PAUSE_SECONDS: Final = 0.5


@dataclass(slots=True)
class Unit:
    """Commands of one slot that Redis does together, and their places among all commands."""

    slot: int
    commands: list[Command]
    places: list[int]
    # Where Redis said to ask just once, while the slot moves.
    asks: Node | None = None

    def to_send(self) -> list[Command]:
        packed = in_transaction(self.commands)
        return packed if self.asks is None else [(b'ASKING',), *packed]


class ClusterExchange:
    """Commands, and the replies that came so far; an error is a reply as well."""

    def __init__(self, commands: Sequence[Command], *, transaction: bool) -> None:
        self.replies: list[Any] = [None] * len(commands)
        # What has to be sent, in order.
        self.open: list[Unit] = []
        # Whether the map is out of date, and whether sending again at once would be in vain.
        self.wants_slots = False
        self.wants_pause = False
        for place, command in enumerate(commands):
            slot = slot_of(command)
            if transaction and self.open and self.open[-1].slot == slot:
                self.open[-1].commands.append(command)
                self.open[-1].places.append(place)
            else:
                self.open.append(Unit(slot, [command], [place]))

    def batches(self, slots: SlotsMap) -> dict[Node, list[Unit]]:
        """Return what to send to which node; for each batch :meth:`take` or :meth:`failed`."""
        batches: dict[Node, list[Unit]] = {}
        units, self.open = self.open, []
        self.wants_slots = self.wants_pause = False
        for unit in units:
            node = unit.asks or slots.owners[unit.slot]
            if node is None:
                self._again(unit, ClusterDownError('nobody serves the slot'), None)
            else:
                batches.setdefault(node, []).append(unit)
        return batches

    def take(self, node: Node, units: Iterable[Unit], replies: Sequence[Any]) -> None:
        """Take what a node answered to a batch."""
        start = 0
        for unit in units:
            end = start + len(unit.to_send())
            self._take(node, unit, replies[end - len(in_transaction(unit.commands)) : end])
            start = end

    def _take(self, node: Node, unit: Unit, replies: Sequence[Any]) -> None:
        refusal = next((reply for reply in replies if isinstance(reply, NOTHING_DONE)), None)
        if refusal is not None:
            self._again(unit, refusal, node)
        elif len(unit.commands) == 1:
            self.replies[unit.places[0]] = replies[0]
        else:
            self._take_transaction(unit, replies)

    def _take_transaction(self, unit: Unit, replies: Sequence[Any]) -> None:
        *queued, outcome = replies
        if isinstance(outcome, Exception):
            # What Redis did not even queue says why.
            errors = [reply for reply in queued if isinstance(reply, Exception)]
            outcome = [errors[0] if errors else outcome] * len(unit.commands)
        for place, reply in zip(unit.places, outcome, strict=True):
            self.replies[place] = reply

    def failed(self, units: Iterable[Unit], error: Exception) -> None:
        """Take note that a node did not answer; what was sent to it may have been done."""
        for unit in units:
            self._give_up(unit, error)

    def not_connected(self, units: Iterable[Unit], error: Exception) -> None:
        """Take note that a node could not be reached, so that nothing was sent."""
        for unit in units:
            self._again(unit, error, None)

    def give_up(self) -> None:
        """Send nothing again: the latest refusals stand as replies."""
        self.open.clear()

    def _give_up(self, unit: Unit, error: Exception) -> None:
        for place in unit.places:
            self.replies[place] = error

    def _again(self, unit: Unit, refusal: Exception, node: Node | None) -> None:
        self._give_up(unit, refusal)
        unit.asks = None
        if isinstance(refusal, AskError) and not isinstance(refusal, MovedError):
            # No host means: the same one.
            host = refusal.host or (node.host if node else '')
            self.open += _asking(unit, Node(host, int(refusal.port)))
            return
        self.open.append(unit)
        self.wants_slots |= not isinstance(refusal, TryAgainError)
        self.wants_pause |= not isinstance(refusal, MovedError)


def _asking(unit: Unit, node: Node) -> list[Unit]:
    """Return the units that take the place of one whose slot is on the move to a node.

    Its keys are there already, and its subscribers still where they were.
    """
    keys = Unit(unit.slot, [], [], asks=node)
    news = Unit(unit.slot, [], [])
    for command, place in zip(unit.commands, unit.places, strict=True):
        part = news if command[0] == b'SPUBLISH' else keys
        part.commands.append(command)
        part.places.append(place)
    return [part for part in (keys, news) if part.commands]


def pause_seconds(attempts: int) -> float:
    """Return how long to wait before sending again, after some attempts."""
    return min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts, 10))

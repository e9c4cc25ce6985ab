"""What ws4redis is to reach, as ratios to the other contenders or as plain numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from .results import Results

US = 'ws4redis'
FLOOR = ('floor',)
BUN = ('bun',)
NODE = ('node-ws',)
CHANNELS = ('channels',)


class Bound(Enum):
    """The side of the wanted value that is the good one."""

    AT_LEAST = '≥'
    AT_MOST = '≤'


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to be reached.

    Attributes:
        title: what is compared.
        scenario: name of the scenario.
        metric: name of the metric.
        bound: which side is good.
        wanted: the ratio, or the number if it is compared with nobody.
        rivals: contenders' names; the best of them counts. Empty: compared with nobody.
    """

    title: str
    scenario: str
    metric: str
    bound: Bound
    wanted: float
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a target was reached.

    Attributes:
        target: which.
        value: the ratio, or the number; `None` if a measurement is missing.
        rival: title of the best rival.
    """

    target: Target
    value: float | None
    rival: str

    @property
    def verdict(self) -> str:
        """Return the outcome in words."""
        if self.value is None:
            return 'not measured'
        if self.target.bound is Bound.AT_LEAST:
            return 'reached' if self.value >= self.target.wanted else 'not reached'
        return 'reached' if self.value <= self.target.wanted else 'not reached'


_MORE, _LESS = Bound.AT_LEAST, Bound.AT_MOST
_RATE, _CPU = 'delivered_per_second', 'server_cpu_us_per_delivery'
_LATENCY, _PEAK = 'latency_median_ms', 'peak_delivered_per_second'
_ROUNDS = 'round_trips_per_second'
_HANDSHAKES, _MEMORY = 'handshakes_per_second', 'kb_per_websocket'

TARGETS = (
    Target('burst fan-out, 5,000 websockets', 'burst-5000', _RATE, _MORE, 50, NODE),
    Target('burst fan-out, 5,000 websockets', 'burst-5000', _RATE, _MORE, 300, CHANNELS),
    Target('steady fan-out, 1,000: CPU per delivery', 'steady-1000', _CPU, _LESS, 1.25, FLOOR),
    Target('steady fan-out, 1,000: median latency', 'steady-1000', _LATENCY, _LESS, 1.3, FLOOR),
    Target('steady fan-out, 1,000: median latency', 'steady-1000', _LATENCY, _LESS, 1, NODE),
    Target('steady fan-out, 5,000: median latency', 'steady-5000', _LATENCY, _LESS, 1.3, FLOOR),
    Target('steady fan-out, 5,000: median latency', 'steady-5000', _LATENCY, _LESS, 1, NODE),
    Target('private messages', 'private', _PEAK, _MORE, 1, NODE),
    Target('private messages', 'private', _PEAK, _MORE, 10, CHANNELS),
    Target('handshakes, anonymous', 'handshakes', _HANDSHAKES, _MORE, 3, CHANNELS),
    Target('handshakes, session and user', 'handshakes-user', _HANDSHAKES, _MORE, 2, CHANNELS),
    Target('upstream', 'upstream', 'messages_per_second', _MORE, 3, CHANNELS),
    Target('echo by a handler, blocking code', 'handler-blocking', _ROUNDS, _MORE, 5, CHANNELS),
    Target('KB per idle websocket', 'memory', _MEMORY, _LESS, 2),
    Target('memory per idle websocket', 'memory', _MEMORY, _LESS, 0.25, NODE),
    Target('KB per idle websocket, compression', 'memory-compressed', _MEMORY, _LESS, 2),
    Target(
        'memory per idle websocket, compression', 'memory-compressed', _MEMORY, _LESS, 0.25, NODE
    ),
)


def outcomes(results: Results) -> Iterator[Outcome]:
    """Yield the outcome of each target whose scenario was run."""
    run = results.scenarios()
    for target in TARGETS:
        if target.scenario in run:
            yield _outcome(results, target)


def _outcome(results: Results, target: Target) -> Outcome:
    ours = results.median(target.scenario, US, target.metric)
    if not target.rivals:
        return Outcome(target, ours, '')
    values = {
        rival: value
        for rival in target.rivals
        if (value := results.median(target.scenario, rival, target.metric)) is not None
    }
    if not values:
        return Outcome(target, None, ' / '.join(target.rivals))
    best = max if target.bound is Bound.AT_LEAST else min
    rival = best(values, key=values.__getitem__)
    value = None if ours is None or not values[rival] else ours / values[rival]
    return Outcome(target, value, results.titles.get(rival, rival))

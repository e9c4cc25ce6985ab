"""What ws4redis is to reach, as ratios to the other contenders or as plain numbers."""

from collections.abc import Iterator
from typing import NamedTuple

from .results import Results

US = 'ws4redis'


class Target(NamedTuple):
    """One thing to be reached.

    Attributes:
        title: what is compared.
        scenario: name of the scenario.
        metric: name of the metric.
        bound: `≥` or `≤`.
        wanted: the ratio, or the number if it is compared with nothing.
        rival: name of the contender that it is compared with, or of a scenario of our own.
    """

    title: str
    scenario: str
    metric: str
    bound: str
    wanted: float
    rival: str = ''

    def measured(self, results: Results) -> float | None:
        """Return the ratio, or the number; `None` if a measurement is missing."""
        ours = results.median(self.scenario, US, self.metric)
        if not self.rival or ours is None:
            return ours
        scenario, rival = self.scenario, self.rival
        if rival in results.scenarios():
            scenario, rival = rival, US
        theirs = results.median(scenario, rival, self.metric)
        return ours / theirs if theirs else None

    def verdict(self, value: float | None) -> str:
        """Return the outcome in words."""
        if value is None:
            return 'not measured'
        reached = value >= self.wanted if self.bound == '≥' else value <= self.wanted
        return 'reached' if reached else 'not reached'


_RATE, _CPU = 'delivered_per_second', 'server_cpu_us_per_delivery'
_LATENCY, _PEAK = 'latency_median_ms', 'peak_delivered_per_second'
_HANDSHAKES, _MEMORY = 'handshakes_per_second', 'kb_per_websocket'

TARGETS = (
    Target('burst fan-out, 5,000 websockets', 'burst-5000', _RATE, '≥', 1, 'bun'),
    Target('burst fan-out, 5,000 websockets', 'burst-5000', _RATE, '≥', 50, 'node-ws'),
    Target('burst fan-out, 5,000 websockets', 'burst-5000', _RATE, '≥', 300, 'channels'),
    Target('steady fan-out, 1,000: CPU per delivery', 'steady-1000', _CPU, '≤', 1.25, 'floor'),
    Target('steady fan-out, 1,000: median latency', 'steady-1000', _LATENCY, '≤', 1.3, 'floor'),
    Target('steady fan-out, 5,000: median latency', 'steady-5000', _LATENCY, '≤', 1.3, 'floor'),
    Target('burst with a history', 'burst-history', _RATE, '≥', 0.8, 'burst-5000'),
    Target('steady with a history: CPU', 'steady-history', _CPU, '≤', 1.05, 'steady-1000'),
    Target('private messages', 'private', _PEAK, '≥', 1, 'bun'),
    Target('private messages', 'private', _PEAK, '≥', 10, 'channels'),
    Target('handshakes, anonymous', 'handshakes', _HANDSHAKES, '≥', 6_000),
    Target('handshakes, anonymous', 'handshakes', _HANDSHAKES, '≥', 3, 'channels'),
    Target('handshakes, session and user', 'handshakes-user', _HANDSHAKES, '≥', 800),
    Target('handshakes, session and user', 'handshakes-user', _HANDSHAKES, '≥', 2, 'channels'),
    Target('upstream', 'upstream', 'messages_per_second', '≥', 3, 'channels'),
    Target(
        'echo, blocking handler', 'handler-blocking', 'round_trips_per_second', '≥', 5, 'channels'
    ),
    Target('KB per idle websocket', 'memory', _MEMORY, '≤', 2),
    Target('memory per idle websocket', 'memory', _MEMORY, '≤', 0.25, 'node-ws'),
    Target('KB per idle websocket, compression', 'memory-compressed', _MEMORY, '≤', 2),
)


def targets_of(results: Results) -> Iterator[Target]:
    """Yield the targets whose scenario was run."""
    run = results.scenarios()
    return (target for target in TARGETS if target.scenario in run)

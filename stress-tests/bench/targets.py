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
        ours: name of the contender that is to reach it.
    """

    title: str
    scenario: str
    metric: str
    bound: str
    wanted: float
    rival: str = ''
    ours: str = US

    def measured(self, results: Results) -> float | None:
        """Return the ratio, or the number; `None` if a measurement is missing."""
        ours = results.median(self.scenario, self.ours, self.metric)
        if not self.rival or ours is None:
            return ours
        scenario, rival = self.scenario, self.rival
        if rival in results.scenarios():
            scenario, rival = rival, self.ours
        theirs = results.median(scenario, rival, self.metric)
        return ours / theirs if theirs else None

    def verdict(self, value: float | None) -> str:
        """Return the outcome in words."""
        if value is None:
            return 'not measured'
        reached = value >= self.wanted if self.bound == '≥' else value <= self.wanted
        if reached:
            return 'reached'
        return ': '.join(filter(None, ['not reached', REASONS.get(self.title, '')]))


RATE, CPU = 'delivered_per_second', 'server_cpu_us_per_delivery'
LATENCY, PEAK = 'latency_median_ms', 'peak_delivered_per_second'
HANDSHAKES, MEMORY = 'handshakes_per_second', 'kb_per_websocket'

NATIVE = 'ws4redis-native'

TARGETS = (
    Target('burst fan-out, 5,000 websockets', 'burst-5000', RATE, '≥', 1, 'bun'),
    Target('burst fan-out, 5,000 websockets', 'burst-5000', RATE, '≥', 50, 'node-ws'),
    Target('burst fan-out, 5,000 websockets', 'burst-5000', RATE, '≥', 300, 'channels'),
    Target('steady fan-out, 1,000: CPU per delivery', 'steady-1000', CPU, '≤', 1.25, 'floor'),
    Target('steady fan-out, 1,000: median latency', 'steady-1000', LATENCY, '≤', 1.3, 'floor'),
    Target('steady fan-out, 5,000: median latency', 'steady-5000', LATENCY, '≤', 1.3, 'floor'),
    Target('private messages', 'private', PEAK, '≥', 1, 'bun'),
    Target('private messages', 'private', PEAK, '≥', 10, 'channels'),
    Target('burst with a history', 'burst-history', RATE, '≥', 0.8, 'burst-5000'),
    Target('steady with a history: CPU', 'steady-history', CPU, '≤', 1.05, 'steady-1000'),
    Target('steady, metrics and live page: CPU', 'steady-seen', CPU, '≤', 1.03, 'steady-unseen'),
    *(
        Target(title, 'histories.py', title, '≤', wanted)
        for title, wanted in {
            'publishing with a history: time × plain': 1.5,
            'memory of a websocket for a history, bytes': 100,
            '10,000 come back to a channel who missed 20 messages: reads': 3,
            'beside them: p99 of a steady channel, ms': 50,
            'longest turn while 10,000 channels are verified, ms': 20,
        }.items()
    ),
    *(
        Target(title, 'client_protocol.py', title, bound, wanted)
        for title, bound, wanted in (
            ('a connection with 3 subscriptions, KB', '≤', 2.5),
            ('20,000 subscriptions on 2,000 connections, s', '≤', 4),
            ('client protocol: burst × plain websockets', '≥', 0.8),
            ('client protocol: steady CPU × plain websockets', '≤', 1.1),
            ('a logout reaches 1,000 websockets, s', '≤', 1),
            ('presence of 10,000 members in a channel: % of a core', '≤', 1),
            ("presence of 10,000 members in a channel: Redis' commands/s", '≤', 50),
        )
    ),
    Target('native: handshakes/s, anonymous', 'handshakes', HANDSHAKES, '≥', 12_000, ours=NATIVE),
    Target('native: handshakes/s, session and user', 'handshakes-user', HANDSHAKES, '≥', 1_500,
           ours=NATIVE),
    *(
        Target(f'native: {title}', 'door.py', title, bound, wanted)
        for title, bound, wanted in (
            ('handshakes/s, ticket and three channels of the server', '≥', 8_000),
            ('handshakes/s, ticket and three channels of the client', '≥', 8_000),
            ('handshakes per CPU second, TLS, new', '≥', 2_500),
            ('handshakes per CPU second, TLS, resumed', '≥', 4_000),
            ('bytes of a slow head', '≤', 2_048),
            ('handshake beside 5,000 slow heads, ms at most', '≤', 50),
            ('event stream: memory × websocket', '≤', 1.2),
            ('event stream: steady CPU × websocket', '≤', 1.1),
        )
    ),
    Target('uWSGI: handshakes/s, anonymous', 'handshakes', HANDSHAKES, '≥', 6_000),
    Target('uWSGI: handshakes/s, anonymous', 'handshakes', HANDSHAKES, '≥', 3, 'channels'),
    Target('uWSGI: handshakes/s, session and user', 'handshakes-user', HANDSHAKES, '≥', 800),
    Target('uWSGI: handshakes/s, session and user', 'handshakes-user', HANDSHAKES, '≥', 2,
           'channels'),
    *(
        Target(f'storm of 20,000 with tickets: {title}', 'storm.py', title, '≤', wanted)
        for title, wanted in {
            's from the first to the last one back': 8,
            'reads of histories': 100,
            'p99 beside, ms': 100,
        }.items()
    ),
    Target('upstream', 'upstream', 'messages_per_second', '≥', 3, 'channels'),
    Target('echo, blocking handler', 'handler-blocking', 'round_trips_per_second', '≥', 5,
           'channels'),
    Target('KB per idle websocket', 'memory', MEMORY, '≤', 2),
    Target('memory per idle websocket', 'memory', MEMORY, '≤', 0.25, 'node-ws'),
    Target('KB per idle websocket, compression', 'memory-compressed', MEMORY, '≤', 2),
)  # fmt: skip


# Why a target is missed, by its title, where it is.
REASONS = {
    'publishing with a history: time × plain': (
        'Redis runs a script that appends, keeps and publishes, instead of two commands'
    ),
    'client protocol: burst × plain websockets': (
        'its frames are half as long again; plain ones of that length are no faster'
    ),
    'native: handshakes/s, anonymous': (
        'a handshake takes 70 to 80 µs of CPU, but the core is not busy all the time'
    ),
    **dict.fromkeys(
        (
            'native: handshakes/s, ticket and three channels of the server',
            'native: handshakes/s, ticket and three channels of the client',
        ),
        'a handshake alone takes more than half of 125 µs; then come Django, three subscriptions '
        'and their replies',
    ),
    'native: handshakes per CPU second, TLS, resumed': (
        'OpenSSL itself takes 180 of the 250 µs, the handshake 75'
    ),
    'private messages': 'C++ against Python; each message is for one websocket, nothing is shared',
    'uWSGI: handshakes/s, anonymous': (
        'an empty application takes 42 µs; each handshake has turns of two loops for itself'
    ),
    'uWSGI: handshakes/s, session and user': 'most of it is the database and the session store',
    'native: handshakes/s, session and user': 'most of it is the database and the session store',
    'storm of 20,000 with tickets: s from the first to the last one back': (
        'two cores are busy all the time, with the clients as well'
    ),
}


def targets_of(results: Results) -> Iterator[Target]:
    """Yield the targets whose scenario was run."""
    run = results.scenarios()
    return (target for target in TARGETS if target.scenario in run)

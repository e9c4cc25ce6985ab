"""The scenarios: what is measured, how large, and what of it is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .contenders import Code, Contender, Features
from .crowd import SERVERS, crowd
from .figures import figures_of
from .measurements import (
    Metrics,
    burst,
    compressed_burst,
    handler_echo,
    handshakes,
    memory,
    private,
    steady,
    storm,
    upstream,
)
from .stage import Theatre
from .targets import TARGETS

Suits = Callable[[Features], bool]


def _takes_part(features: Features) -> bool:
    return features.fan_out


def _keeps(features: Features) -> bool:
    return features.histories


def _is_ours(features: Features) -> bool:
    return features.scripts


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure.

    Attributes:
        name: as given on the command line.
        title: as shown in tables.
        run: measures one contender.
        metrics: those to be shown, by name, with their titles; none: all.
        suits: whether it makes sense for a contender with these features.
        rounds: how often it is measured at most.
    """

    name: str
    title: str
    run: Callable[[Theatre, Contender], Metrics]
    metrics: dict[str, str]
    suits: Suits = _takes_part
    rounds: int = 3


RATE = {'delivered_per_second': 'delivered/s'}
LATENCY = {'latency_median_ms': 'median, ms', 'latency_p99_ms': '99th percentile, ms'}
HANDSHAKES = {
    'handshakes_per_second': 'handshakes/s',
    'server_cpu_us_per_handshake': 'server CPU, µs/handshake',
}
MEMORY = {'kb_per_websocket': 'KB per websocket'}
CPU = {'server_cpu_us_per_delivery': 'server CPU, µs/delivery'}


def _has_handlers(code: Code, features: Features) -> bool:
    return code in features.handlers


def make_scenarios(scale: float = 1.0) -> list[Scenario]:
    """Return all scenarios, those first that tell most.

    Args:
        scale: factor to the numbers of websockets and messages; 1 for those of the targets.
    """

    def scaled(number: int, least: int = 20) -> int:
        return max(round(number * scale), min(number, least))

    def bursts(
        name: str,
        count: int,
        what: str = '',
        suits: Suits = _takes_part,
        rounds: int = 3,
        **options: Any,
    ) -> Scenario:
        title = f'burst fan-out{what}: {scaled(200)} messages to {scaled(count):,} websockets'
        run = partial(burst, websockets=scaled(count), messages=scaled(200), **options)
        return Scenario(name, title, run, RATE | CPU, suits, rounds)

    def steadies(
        name: str, count: int, what: str = '', suits: Suits = _takes_part, **options: Any
    ) -> Scenario:
        title = f'steady fan-out{what}: 20 messages/s to {scaled(count):,} websockets'
        seconds = 10 if scale == 1 else 2
        run = partial(steady, websockets=scaled(count), seconds=seconds, **options)
        return Scenario(name, title, run, LATENCY | CPU, suits)

    def memories(name: str, title: str, *, compression: bool, **more: Any) -> Scenario:
        count = scaled(15_000, 100)
        run = partial(memory, websockets=count, compression=compression)
        return Scenario(name, f'memory: {count:,} idle websockets{title}', run, MEMORY, **more)

    comparisons = [
        bursts('burst-5000', 5_000),
        steadies('steady-1000', 1_000),
        Scenario(
            'handshakes',
            'handshakes, anonymous broadcast',
            partial(handshakes, websockets=scaled(5_000)),
            HANDSHAKES,
            lambda _: True,
        ),
        Scenario(
            'handshakes-user',
            'handshakes with session and user',
            partial(handshakes, websockets=scaled(3_000), of_users=True),
            HANDSHAKES,
            lambda features: features.sessions,
        ),
        bursts('burst-history', 5_000, ' with a history', _keeps, histories=True),
        steadies('steady-history', 1_000, ' with a history', _keeps, histories=True),
        steadies('steady-seen', 1_000, ' with metrics and the live page open', _is_ours, seen=True),
        steadies('steady-unseen', 1_000, ' without metrics', _is_ours, seen=False),
        memories('memory', '', compression=False),
        Scenario(
            'private',
            f'private messages: {scaled(20_000):,}/s to {scaled(10_000):,} users',
            partial(
                private,
                users=scaled(10_000),
                per_second=scaled(20_000, 100),
                seconds=5 if scale == 1 else 2,
            ),
            {'peak_delivered_per_second': 'delivered/s at most'} | RATE | LATENCY | CPU,
        ),
        Scenario(
            'crowd',
            f'crowd: {scaled(100_000):,} websockets in {SERVERS} processes',
            partial(crowd, websockets=scaled(100_000)),
            {
                'reach_seconds': 'seconds until a message has reached all',
                'opened_seconds': 'seconds until all are open',
            }
            | MEMORY
            | CPU,
            lambda features: features.crowd,
        ),
        steadies('steady-5000', 5_000),
        Scenario(
            'storm',
            f'storm: the server is killed, and {scaled(10_000):,} websockets come back',
            partial(storm, websockets=scaled(10_000)),
            {
                'back_seconds': 'seconds until all are back',
                'start_seconds': 'of them until it listens',
                'server_cpu_us_per_client': 'server CPU, µs/client',
            },
            rounds=1,
        ),
        *(
            Scenario(
                f'handler-{code.value}',
                f'echo by a handler, {code.value} code, {scaled(200)} clients',
                partial(handler_echo, code=code, clients=scaled(200), round_trips=scaled(300)),
                {'round_trips_per_second': 'round trips/s'} | LATENCY | CPU,
                partial(_has_handlers, code),
            )
            for code in Code
        ),
        Scenario(
            'upstream',
            f'upstream: {scaled(1_000):,} clients to one subscriber',
            partial(upstream, clients=scaled(1_000), messages_each=scaled(100)),
            {'messages_per_second': 'messages/s'},
            lambda features: features.upstream,
            rounds=1,
        ),
        Scenario(
            'compressed',
            f'compressed fan-out: {scaled(100)} messages of 2 KB to {scaled(1_000):,} websockets',
            partial(compressed_burst, websockets=scaled(1_000), messages=scaled(100)),
            RATE | CPU | {'sent_bytes_per_message': 'bytes sent'},
            lambda features: features.compression,
            rounds=1,
        ),
        memories(
            'memory-compressed',
            ' with compression negotiated',
            compression=True,
            suits=lambda features: features.compression,
            rounds=1,
        ),
        bursts('burst-1000', 1_000, rounds=1),
        bursts('burst-15000', 15_000, rounds=1),
    ]
    if scale < 1:
        return [*comparisons, _script('views'), _script('handlers', '--quick')]
    scripts = [
        # What has a target of its own comes before what is merely interesting.
        _script('door', 'ticket', 'ticket-server', 'tls', 'slow', 'streams', rounds=3),
        _script('storm', 'kill', rounds=3),
        _script('histories', rounds=3),
        _script('client_protocol', '--rounds', '3'),
    ]
    return [*comparisons[:4], *scripts, *comparisons[4:], _script('views'), _script('handlers')]


def _script(name: str, *arguments: str, rounds: int = 1) -> Scenario:
    """Return what a script of its own measures, which tells its figures (`figures.py`)."""
    file = f'{name}.py'

    def run(theatre: Theatre, contender: Contender) -> Metrics:
        wanted = {target.metric for target in TARGETS if target.scenario == file}
        return figures_of(file, arguments, wanted, theatre.directory)

    command = ' '.join([f'stress-tests/{file}', *arguments])
    return Scenario(file, f'`{command}`', run, {}, _is_ours, rounds)

"""The scenarios: what is measured, how large, and what of it is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .contenders import Code, Contender, Features
from .crowd import SERVERS, crowd
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


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure.

    Attributes:
        name: as given on the command line.
        title: as shown in tables.
        run: measures one contender.
        metrics: those to be shown, by name, with their titles.
        suits: whether it makes sense for a contender with these features.
        is_large: run only if it is named, or at a small scale.
    """

    name: str
    title: str
    run: Callable[[Theatre, Contender], Metrics]
    metrics: dict[str, str]
    suits: Callable[[Features], bool] = lambda _: True
    is_large: bool = False


RATE = {'delivered_per_second': 'delivered/s'}
LATENCY = {'latency_median_ms': 'median, ms', 'latency_p99_ms': '99th percentile, ms'}
HANDSHAKES = {
    'handshakes_per_second': 'handshakes/s',
    'server_cpu_us_per_handshake': 'server CPU, µs/handshake',
}
CPU = {'server_cpu_us_per_delivery': 'server CPU, µs/delivery'}


def _has_handlers(code: Code, features: Features) -> bool:
    return code in features.handlers


def make_scenarios(scale: float = 1.0) -> list[Scenario]:
    """Return all scenarios.

    Args:
        scale: factor to the numbers of websockets and messages; 1 for those of the targets.
    """

    def scaled(number: int, least: int = 20) -> int:
        return max(round(number * scale), min(number, least))

    seconds = 10 if scale == 1 else 2
    scenarios = [
        Scenario(
            f'burst-{count}',
            f'burst fan-out: {scaled(200)} messages to {scaled(count):,} websockets',
            partial(burst, websockets=scaled(count), messages=scaled(200)),
            RATE | CPU,
        )
        for count in (1_000, 5_000, 15_000)
    ]
    scenarios += [
        Scenario(
            f'steady-{count}',
            f'steady fan-out: 20 messages/s to {scaled(count):,} websockets',
            partial(steady, websockets=scaled(count), seconds=seconds),
            LATENCY | CPU,
        )
        for count in (1_000, 5_000)
    ]
    scenarios += [
        Scenario(
            'burst-history',
            f'burst fan-out with a history: {scaled(200)} messages to {scaled(5_000):,} websockets',
            partial(burst, websockets=scaled(5_000), messages=scaled(200), histories=True),
            RATE | CPU,
            lambda features: features.histories,
        ),
        Scenario(
            'steady-history',
            f'steady fan-out with a history: 20 messages/s to {scaled(1_000):,} websockets',
            partial(steady, websockets=scaled(1_000), seconds=seconds, histories=True),
            LATENCY | CPU,
            lambda features: features.histories,
        ),
        Scenario(
            'private',
            f'private messages: {scaled(20_000):,}/s to {scaled(10_000):,} users',
            partial(
                private,
                users=scaled(10_000),
                per_second=scaled(20_000, 100),
                seconds=min(seconds, 5),
            ),
            {'peak_delivered_per_second': 'delivered/s at most'} | RATE | LATENCY | CPU,
        ),
        Scenario(
            'upstream',
            f'upstream: {scaled(1_000):,} clients to one subscriber',
            partial(upstream, clients=scaled(1_000), messages_each=scaled(100)),
            {'messages_per_second': 'messages/s'},
            lambda features: features.upstream,
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
            'handshakes',
            'handshakes, anonymous broadcast',
            partial(handshakes, websockets=scaled(5_000)),
            HANDSHAKES,
        ),
        Scenario(
            'handshakes-user',
            'handshakes with session and user',
            partial(handshakes, websockets=scaled(3_000), of_users=True),
            HANDSHAKES,
            lambda features: features.sessions,
        ),
        Scenario(
            'storm',
            f'storm: the server is killed, and {scaled(10_000):,} websockets come back',
            partial(storm, websockets=scaled(10_000)),
            {
                'back_seconds': 'seconds until all are back',
                'start_seconds': 'of them until it listens',
                'server_cpu_us_per_client': 'server CPU, µs/client',
            },
        ),
        Scenario(
            'memory',
            f'memory: {scaled(15_000, 100):,} idle websockets',
            partial(memory, websockets=scaled(15_000, 100), compression=False),
            {'kb_per_websocket': 'KB per websocket'},
        ),
        Scenario(
            'memory-compressed',
            f'memory: {scaled(15_000, 100):,} idle websockets with compression negotiated',
            partial(memory, websockets=scaled(15_000, 100), compression=True),
            {'kb_per_websocket': 'KB per websocket'},
            lambda features: features.compression,
        ),
        Scenario(
            'compressed',
            f'compressed fan-out: {scaled(100)} messages of 2 KB to {scaled(1_000):,} websockets',
            partial(compressed_burst, websockets=scaled(1_000), messages=scaled(100)),
            RATE | CPU | {'sent_bytes_per_message': 'bytes sent'},
            lambda features: features.compression,
        ),
    ]
    scenarios.append(
        Scenario(
            'crowd',
            f'crowd: {scaled(100_000):,} websockets in {SERVERS} processes',
            partial(crowd, websockets=scaled(100_000)),
            {
                'reach_seconds': 'seconds until a message has reached all',
                'opened_seconds': 'seconds until all are open',
                'kb_per_websocket': 'KB per websocket',
            }
            | CPU,
            lambda features: features.crowd,
            is_large=True,
        )
    )
    return scenarios

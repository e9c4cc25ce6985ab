"""Compare the protocol with wsproto and with websockets: parsing speed and memory when idle.

Run ``python stress-tests/parsing.py``; needs ``pip install wsproto websockets wsaccel``. All is
measured in one process and in turns, so that a busy machine is equally busy for all. Of each
measurement the fastest of several rounds counts.

Each parser gets the same bytes, one masked message per read, and hands out its payload. What that
means is what the library does, all at their defaults: wsproto and ws4redis validate text as UTF-8,
websockets' sans-I/O layer does not.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ws4redis.protocol import connection, masking, message
from ws4redis.protocol.connection import Limits, ServerConnection

MAX_MESSAGE_BYTES = 1 << 20

#: So many are idle at the same time when memory is measured.
IDLE_CONNECTIONS = 2000

TARGET_IDLE_BYTES = 500

Parse = Callable[[bytes], Any]


@dataclass(frozen=True)
class Target:
    """How many times as fast as another library we are to be, and with which masking."""

    workload: str
    library: str
    factor: float
    masking: tuple[str, ...]


TARGETS = [
    Target('small', 'websockets', 2.0, ('websockets', 'wsaccel')),
    Target('small', 'wsproto', 6.0, ('websockets', 'wsaccel')),
    # wsaccel masks byte by byte: with large messages it cannot keep up with vector instructions.
    Target('64 KiB', 'websockets', 1.0, ('websockets',)),
]


@dataclass(frozen=True)
class Contender:
    """One library: how to make a connection and how to have it parse a read."""

    name: str
    connect: Callable[[], Any]
    parser: Callable[[Any], Parse]
    masking: str | None = None


def ws4redis_contender(masking_name: str) -> Contender:
    limits = Limits(max_message_size=MAX_MESSAGE_BYTES)
    return Contender(
        f'ws4redis ({masking_name} masking)',
        lambda: ServerConnection(limits),
        lambda opened: opened.receive_data,
        masking_name,
    )


def websockets_contender() -> Contender:
    from websockets.protocol import State
    from websockets.server import ServerProtocol

    def parser(opened: Any) -> Parse:
        def parse(data: bytes) -> Any:
            opened.receive_data(data)
            return opened.events_received()

        return parse

    return Contender(
        f'websockets {version("websockets")}',
        lambda: ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE_BYTES),
        parser,
    )


def wsproto_contender() -> Contender:
    from wsproto.connection import Connection, ConnectionType

    def parser(opened: Any) -> Parse:
        def parse(data: bytes) -> Any:
            opened.receive_data(data)
            return list(opened.events())

        return parse

    return Contender(
        f'wsproto {version("wsproto")}', lambda: Connection(ConnectionType.SERVER), parser
    )


@contextmanager
def masking_of(contender: Contender) -> Iterator[None]:
    """Make the protocol mask with what the contender is to be measured with."""
    if contender.masking is None:
        yield
        return
    apply_mask = masking.available()[contender.masking]
    previous = masking.apply_mask
    try:
        vars(connection)['apply_mask'] = vars(message)['apply_mask'] = apply_mask
        yield
    finally:
        vars(connection)['apply_mask'] = vars(message)['apply_mask'] = previous


def masked_frame(payload: bytes, opcode: int) -> bytes:
    length = len(payload)
    if length < 126:
        header = bytes([0x80 | opcode, 0x80 | length])
    elif length < 65536:
        header = bytes([0x80 | opcode, 0xFE]) + length.to_bytes(2, 'big')
    else:
        header = bytes([0x80 | opcode, 0xFF]) + length.to_bytes(8, 'big')
    mask = os.urandom(4)
    return header + mask + masking.apply_mask(payload, mask)


def workloads() -> dict[str, tuple[bytes, int]]:
    """Return frames, and how many messages each has."""
    small = b'{"user": "john", "text": "hello, world", "id": 4711}'
    text = os.urandom(32768).hex().encode()
    return {
        'small': (masked_frame(small, 1), 1),
        'small binary': (masked_frame(small, 2), 1),
        'small, 10 per read': (masked_frame(small, 1) * 10, 10),
        '4 KiB': (masked_frame(text[:4096], 1), 1),
        '64 KiB': (masked_frame(text, 1), 1),
        '64 KiB binary': (masked_frame(os.urandom(65536), 2), 1),
    }


def measure(contender: Contender, data: bytes, seconds: float) -> float:
    """Return how many reads like ``data`` are parsed per second."""
    with masking_of(contender):
        parse = contender.parser(contender.connect())
        assert parse(data), 'nothing was parsed'
        count, elapsed = 1, 0.0
        while True:
            began = time.perf_counter()
            for _ in range(count):
                parse(data)
            elapsed = time.perf_counter() - began
            if elapsed >= seconds:
                return count / elapsed
            count = max(count * 2, int(count * seconds / max(elapsed, 1e-6)))


def idle_bytes(contender: Contender) -> float:
    """Return the memory of one connection that parsed a message and waits for the next."""
    data, _ = workloads()['small']
    connections: list[Any] = [None] * IDLE_CONNECTIONS
    warm_up = contender.connect()
    contender.parser(warm_up)(data)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for index in range(IDLE_CONNECTIONS):
        opened = contender.connect()
        contender.parser(opened)(data)
        connections[index] = opened
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / IDLE_CONNECTIONS


def contenders() -> list[Contender]:
    others = [websockets_contender(), wsproto_contender()]
    return [ws4redis_contender(name) for name in masking.available()] + others


def main() -> int:
    """Measure, print, and tell by the exit status whether the targets are reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5, help='the fastest counts')
    parser.add_argument('--seconds', type=float, default=0.15, help='of each measurement')
    options = parser.parse_args()

    entrants = contenders()
    speeds = measure_all(entrants, rounds=options.rounds, seconds=options.seconds)
    memory = {entrant.name: idle_bytes(entrant) for entrant in entrants}
    print_table(entrants, speeds, memory)
    return 0 if print_targets(entrants, speeds, memory) else 1


Speeds = dict[tuple[str, str], float]


def measure_all(entrants: list[Contender], *, rounds: int, seconds: float) -> Speeds:
    """Return messages per second for each workload and contender."""
    fastest: Speeds = {}
    for _ in range(rounds):
        for workload, (data, messages) in workloads().items():
            for entrant in entrants:
                speed = measure(entrant, data, seconds) * messages
                key = (workload, entrant.name)
                fastest[key] = max(speed, fastest.get(key, 0.0))
    return fastest


def print_table(entrants: list[Contender], speeds: Speeds, memory: dict[str, float]) -> None:
    names = [entrant.name for entrant in entrants]
    width = max(map(len, names))
    columns = list(workloads())
    print(f'{"messages per second":{width}}  ' + '  '.join(f'{c:>18}' for c in columns))
    for name in names:
        cells = '  '.join(f'{speeds[column, name]:18,.0f}' for column in columns)
        print(f'{name:{width}}  {cells}')
    print(f'\n{"bytes per idle connection":{width}}')
    for name in names:
        print(f'{name:{width}}  {memory[name]:18,.0f}')


def print_targets(entrants: list[Contender], speeds: Speeds, memory: dict[str, float]) -> bool:
    """Print what is to be reached and tell whether it is."""
    print('\ntargets')
    ours = [entrant for entrant in entrants if entrant.masking is not None]
    reached = []
    for target in TARGETS:
        other = next(e.name for e in entrants if e.name.startswith(target.library))
        for entrant in ours:
            if entrant.masking in target.masking:
                factor = speeds[target.workload, entrant.name] / speeds[target.workload, other]
                what = f'{target.workload}: {entrant.name} / {other}'
                reached.append(factor >= target.factor)
                print(f'{what}: {factor:.1f} (at least {target.factor:g}) {_verdict(reached[-1])}')
    for entrant in ours:
        reached.append(memory[entrant.name] < TARGET_IDLE_BYTES)
        what = f'idle: {entrant.name}: {memory[entrant.name]:.0f} bytes'
        print(f'{what} (below {TARGET_IDLE_BYTES}) {_verdict(reached[-1])}')
    return all(reached)


def _verdict(reached: bool) -> str:  # noqa: FBT001 - a verdict is of nothing else
    return 'reached' if reached else 'MISSED'


if __name__ == '__main__':
    sys.exit(main())

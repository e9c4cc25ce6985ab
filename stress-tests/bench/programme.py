"""Run the scenarios: each with each contender in turn, in several rounds.

The rounds are interleaved, so that a slow minute of the machine meets all contenders alike.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from .contenders import Contender, Setup
from .environments import NotInstalled
from .processes import ServerFailed
from .publishers import PublishFailed
from .redis_server import RedisServer
from .results import Measurement
from .scenarios import Scenario
from .stage import Limits, Theatre, Wrong
from .swarm import HandshakeRefused

ACCOUNTS = 1000
ACCOUNTS_SECONDS = 120

FAILURES = (ServerFailed, PublishFailed, HandshakeRefused, Wrong, OSError)


@contextlib.contextmanager
def open_theatre(limits: Limits, *, accounts: int = ACCOUNTS) -> Iterator[Theatre]:
    """Start Redis, and create users with sessions.

    Args:
        limits: how long things may take.
        accounts: number of users.
    """
    with tempfile.TemporaryDirectory(prefix='ws4redis-bench-') as name:
        directory = Path(name)
        with RedisServer(directory) as redis:
            session_keys = _create_accounts(Setup(redis, directory), accounts) if accounts else ()
            yield Theatre(redis, directory, session_keys, limits)


def _create_accounts(setup: Setup, count: int) -> Sequence[str]:
    command = [sys.executable, '-m', 'bench.servers.accounts', str(count)]
    environment = os.environ | setup.environment(
        DJANGO_SETTINGS_MODULE='bench.servers.django_settings'
    )
    output = subprocess.run(
        command,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=ACCOUNTS_SECONDS,
    ).stdout
    return output.split()


def perform(
    theatre: Theatre,
    scenarios: Sequence[Scenario],
    contenders: Sequence[Contender],
    *,
    rounds: int,
    report: Callable[[Measurement], None],
) -> Iterator[Measurement]:
    """Yield one measurement after the other.

    Args:
        theatre: where they are made.
        scenarios: which.
        contenders: with which.
        rounds: how often.
        report: called with each, as soon as it is there.
    """
    missing: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            for contender in contenders:
                if not scenario.suits(contender.features):
                    continue
                measurement = _perform_one(theatre, scenario, contender, number, missing)
                report(measurement)
                yield measurement


def _perform_one(
    theatre: Theatre,
    scenario: Scenario,
    contender: Contender,
    number: int,
    missing: dict[str, str],
) -> Measurement:
    """Return one measurement; a contender that cannot run here is remembered in `missing`."""

    def result(**kwargs: object) -> Measurement:
        return Measurement(scenario.name, contender.name, number, **kwargs)  # type: ignore[arg-type]

    if contender.name in missing:
        return result(skipped=missing[contender.name])
    try:
        return result(metrics=scenario.run(theatre, contender))
    except NotInstalled as exc:
        missing[contender.name] = str(exc)
        return result(skipped=str(exc))
    except FAILURES as exc:
        return result(failure=f'{type(exc).__name__}: {exc}')


def exit_by_signal(number: int, frame: FrameType | None) -> None:
    """End the process as a handler of signals: all context managers end what they started."""
    sys.exit(128 + number)

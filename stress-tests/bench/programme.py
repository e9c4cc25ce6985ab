"""Run the scenarios: each with each contender in turn, in several rounds.

The rounds are interleaved, so that a slow minute of the machine meets all contenders alike.
"""

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from .contenders import Contender, Setup
from .environments import NotInstalled
from .redis_server import RedisServer
from .results import Measurement
from .scenarios import Scenario
from .stage import Limits, Theatre

ACCOUNTS = 1000
ACCOUNTS_SECONDS = 120


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
    done: Sequence[Measurement] = (),
    seconds: float = math.inf,
) -> Iterator[Measurement]:
    """Yield one measurement after the other.

    Args:
        theatre: where they are made.
        scenarios: which.
        contenders: with which.
        rounds: how often, unless a scenario or a contender has fewer.
        done: those that an earlier run has made.
        seconds: how long all may take; what does not fit in is skipped.
    """
    end = time.monotonic() + seconds
    missing: dict[str, str] = {}
    takes = {measurement.key[:2]: measurement.seconds for measurement in done}
    known = {measurement.key for measurement in done}
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            for contender in contenders:
                key = scenario.name, contender.name, number
                most = min(scenario.rounds, contender.rounds)
                if not scenario.suits(contender.features) or number > most or key in known:
                    continue
                began = time.monotonic()
                if contender.name in missing:
                    yield Measurement(*key, skipped=missing[contender.name])
                elif began + takes.get(key[:2], 0.0) > end:
                    yield Measurement(*key, skipped='no time was left')
                else:
                    measurement = _perform_one(theatre, scenario, contender, number, missing)
                    takes[key[:2]] = time.monotonic() - began
                    yield replace(measurement, seconds=takes[key[:2]])


def _perform_one(
    theatre: Theatre,
    scenario: Scenario,
    contender: Contender,
    number: int,
    missing: dict[str, str],
) -> Measurement:
    """Return one measurement; a contender that cannot run here is remembered in `missing`."""
    key = scenario.name, contender.name, number
    try:
        return Measurement(*key, metrics=scenario.run(theatre, contender))
    except NotInstalled as exc:
        missing[contender.name] = str(exc)
        return Measurement(*key, skipped=str(exc))
    except Exception as exc:
        # Whatever it is, the others are still to be measured.
        return Measurement(*key, failure=f'{type(exc).__name__}: {exc}')


def exit_by_signal(number: int, frame: FrameType | None) -> None:
    """End the process as a handler of signals: all context managers end what they started."""
    sys.exit(128 + number)

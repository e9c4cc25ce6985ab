#!/usr/bin/env python
"""Measure ws4redis side by side with what one would pick instead.

Starts Redis and the servers by itself, and ends them. See docs/explanation/benchmarks.md.
"""

import argparse
import gc
import math
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from bench import document, report
from bench.contenders import CONTENDERS, Ws4redis
from bench.environments import NODE_PACKAGES, PYTHON_PACKAGES
from bench.programme import exit_by_signal, open_theatre, perform
from bench.results import Measurement, Results, describe_machine, installed_versions, merged
from bench.scenarios import Scenario, make_scenarios
from bench.stage import Limits

QUICK_SCALE = 0.02
QUICK_CONTENDERS = ['ws4redis', 'floor']


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = _parse(arguments)
    if options.document:
        document.insert(merged([Results.load(path) for path in options.document]))
        return 0
    signal.signal(signal.SIGTERM, exit_by_signal)
    # The load client makes no cycles, and no pause of the collector is to be measured.
    gc.disable()
    scenarios = _selected(make_scenarios(QUICK_SCALE if options.quick else 1.0), options.scenario)
    if options.against:
        CONTENDERS['ws4redis-other'] = Ws4redis(options.against.resolve())
    names = options.contender or (QUICK_CONTENDERS if options.quick else list(CONTENDERS))
    if options.against and options.contender:
        names = [*names, 'ws4redis-other']
    contenders = [CONTENDERS[name] for name in names]
    limits = Limits(run_seconds=options.limit)
    if options.quick:
        # A busy machine may be slow: only what never arrives is an error.
        limits = replace(limits, straggle_seconds=options.limit)
    with open_theatre(limits, accounts=20 if options.quick else 1000) as theatre:
        results = Results(
            describe_machine([('Redis', theatre.redis.version()), *_versions(names)]),
            _command_line(options),
            {contender.name: contender.title for contender in contenders},
        )
        if options.json and options.json.exists():
            results = merged([Results.load(options.json), results])
            # What could not be measured is tried again.
            results.measurements[:] = [each for each in results.measurements if each.metrics]
        for measurement in perform(
            theatre,
            scenarios,
            contenders,
            rounds=options.rounds,
            done=tuple(results.measurements),
            seconds=60 * options.minutes,
        ):
            report.print_measurement(measurement)
            results.measurements.append(measurement)
            if options.json:
                results.save(options.json)
    tables = [*report.scenario_tables(results, scenarios)]
    tables += [] if options.quick else [report.targets_table(results)]
    print('', *(table.as_markdown() for table in tables), sep='\n\n')
    return _check(results, deliveries=options.quick)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [scenario.name for scenario in make_scenarios()]
    parser.add_argument(
        '--scenario', action='append', metavar='NAME',
        help=f'one or more of {", ".join(names)}; or patterns such as burst-*',
    )  # fmt: skip
    parser.add_argument('--contender', action='append', choices=list(CONTENDERS))
    parser.add_argument(
        '--against', type=Path, metavar='DIRECTORY',
        help='another checkout of ws4redis, with its virtual environment in .venv',
    )  # fmt: skip
    parser.add_argument('--rounds', type=int, default=None, help='default: 3, with --quick 1')
    parser.add_argument(
        '--limit', type=float, default=20.0, metavar='SECONDS',
        help='of one measured part; what arrives later is not waited for (default: 20)',
    )  # fmt: skip
    parser.add_argument('--quick', action='store_true', help='small, asserts all deliveries')
    parser.add_argument(
        '--minutes', type=float, default=math.inf,
        help='begin nothing that is not likely to end before; the first round comes first',
    )  # fmt: skip
    parser.add_argument(
        '--json', type=Path, metavar='FILE',
        help='keep each measurement there as soon as it is made, and make none that it has',
    )  # fmt: skip
    parser.add_argument(
        '--document', type=Path, nargs='+', metavar='FILE',
        help='measure nothing; insert the measurements of these files, the later ones instead of '
        'the earlier, into docs/explanation/benchmarks.md and README.md',
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 1 if options.quick else 3
    return options


def _command_line(options: argparse.Namespace) -> str:
    """Return the command line, without the names of files, which mean nothing to others."""
    command = ['python', 'stress-tests/benchmark.py', '--rounds', str(options.rounds)]
    command += ['--limit', f'{options.limit:g}'] + ['--quick'] * options.quick
    for scenario in options.scenario or ():
        command += ['--scenario', scenario]
    for contender in options.contender or ():
        command += ['--contender', contender]
    return shlex.join(command)


def _selected(scenarios: Sequence[Scenario], patterns: Sequence[str] | None) -> list[Scenario]:
    selected = [
        scenario
        for scenario in scenarios
        if any(fnmatchcase(scenario.name, pattern) for pattern in patterns or ['*'])
    ]
    if not selected:
        sys.exit(f'no such scenario: {", ".join(patterns or ())}')
    return selected


def _versions(contenders: Sequence[str]) -> list[tuple[str, str]]:
    versions = list(installed_versions(['Django', 'redis', 'hiredis', 'gevent', 'pyuwsgi']))
    if 'channels' in contenders:
        wanted = ('channels', 'channels_redis', 'uvicorn[standard]', 'uvloop')
        versions += [(name, PYTHON_PACKAGES[name]) for name in wanted]
    if {'node-ws', 'bun'} & set(contenders):
        versions += [*NODE_PACKAGES.items(), ('Node', _version('node', '--version'))]
    if 'nchan' in contenders:
        versions.append(('NGINX with Nchan', _version('/usr/sbin/nginx', '-v')))
    if 'floor' in contenders:
        versions.append(('C compiler', _version('cc', '--version')))
    return versions


def _version(*command: str) -> str:
    try:
        output = subprocess.check_output(command, text=True, stderr=subprocess.STDOUT)
        return output.splitlines()[0].rpartition(': ')[2]
    except OSError as exc:
        return f'not there: {exc}'


def _check(results: Results, *, deliveries: bool) -> int:
    """Return the exit status, and say what went wrong.

    Args:
        results: of all scenarios.
        deliveries: nothing may be missing: neither a contender nor a message.
    """
    wrong = {
        f'{measurement.contender}, {measurement.scenario}: {reason.splitlines()[0]}'
        for measurement in results.measurements
        if (reason := measurement.failure or (deliveries and _incompleteness(measurement)))
    }
    if not deliveries:
        # At a small scale they mean nothing.
        wrong |= {
            f'missed a target: {row[0]}, {row[1]}: {row[2]}'
            for row in report.targets_table(results).rows
            if row[3].startswith('not reached')
        }
    for line in sorted(wrong):
        print(line, file=sys.stderr)
    if deliveries and not wrong:
        print(f'{len(results.measurements)} measurements: everything was delivered')
    return 1 if wrong else 0


def _incompleteness(measurement: Measurement) -> str:
    if measurement.skipped:
        return measurement.skipped
    if measurement.metrics.get('complete_share', 1.0) < 1.0:
        return 'not everything was delivered'
    return ''


if __name__ == '__main__':
    sys.exit(main())

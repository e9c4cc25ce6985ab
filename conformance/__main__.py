"""Run the Autobahn test suite against our echo servers and judge the results.

Exits with 1 if a case fails or does not run. Without a Python 2.7 there is nothing to run the suite
with: then the exit status is 0, with the reason, or 1 under CI (``CI=true``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from conformance.autobahn import (
    SuiteFailed,
    Unavailable,
    end_of_log,
    planned_cases,
    prepare,
    run_fuzzing_client,
)
from conformance.report import NOT_RUN, CaseResult, format_report, read_results
from conformance.targets import DEFAULT_TARGETS, TARGETS
from tests.programs import ServerFailed

#: Names for sets of cases; any other word is one of Autobahn's patterns.
CASE_SETS = {
    'all': ['*'],
    'core': ['1.*', '2.*', '3.*', '4.*', '5.*', '6.*', '7.*', '10.*'],
    'compression-sample': [
        *(f'12.{group}.{case}' for group in (1, 2, 3, 4, 5) for case in (1, 5)),
        *(f'13.{group}.{case}' for group in range(1, 8) for case in (1,)),
        '13.3.5',
        '13.5.5',
        '13.7.5',
    ],
}

DEFAULT_TIMEOUT_SECONDS = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit status."""
    options = _parse(arguments)
    try:
        environment = prepare()
        cases = [pattern for word in options.cases for pattern in CASE_SETS.get(word, [word])]
        planned = planned_cases(environment, cases, options.exclude)
    except Unavailable as reason:
        return _skip(str(reason))
    except SuiteFailed as error:
        print(error, file=sys.stderr)
        return 1
    if not planned:
        print(f'no case matches {" ".join(options.cases)}', file=sys.stderr)
        return 1
    output = options.output or Path(tempfile.mkdtemp(prefix='ws4redis-conformance-'))
    judge = _Judge(environment, planned, output.resolve(), options.timeout)
    servers = _servers(options)
    with ThreadPoolExecutor(len(servers) if options.parallel else 1) as pool:
        results = list(chain(*pool.map(judge, *zip(*servers, strict=True))))
    passed = sum(result.passed for result in results)
    failed = len(results) - passed
    if failed or options.output:
        print(f"Autobahn's own reports are in {output}.")
    else:
        shutil.rmtree(output)
    print(f'\n{passed} passed, {failed} failed')
    return 1 if failed else 0


@dataclass(frozen=True)
class _Judge:
    """Judge one server with the planned cases and print the report."""

    environment: Path
    planned: Sequence[str]
    output: Path
    timeout: float

    def __call__(self, name: str, server: AbstractContextManager[str]) -> list[CaseResult]:
        output = self.output / name
        try:
            with server as url:
                print(f'{name}: {len(self.planned)} cases against {url} …', flush=True)
                run_fuzzing_client(
                    self.environment, url, self.planned, output, timeout=self.timeout
                )
        except (ServerFailed, OSError) as error:
            print(f'{name}: {error}', file=sys.stderr)
        results = read_results(output, self.planned)
        # In one piece: another server may be judged at the same time.
        print(f'\n{name}\n{format_report(results)}\n', flush=True)
        if any(result.behavior == NOT_RUN for result in results):
            print(f"The end of Autobahn's log:\n{end_of_log(output)}\n", file=sys.stderr)
        return results


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='conformance', description=__doc__)
    parser.add_argument(
        '--target',
        action='append',
        choices=sorted(TARGETS),
        help=f'a server to start and judge, repeatable (default: {", ".join(DEFAULT_TARGETS)})',
    )
    parser.add_argument('--url', help='judge the echo server that runs at this URL instead')
    parser.add_argument(
        '--cases',
        nargs='+',
        default=['all'],
        help=f'{", ".join(CASE_SETS)}, or patterns like 6.* or 7.3.1 (default: all)',
    )
    parser.add_argument('--exclude', nargs='+', default=[], help='patterns of cases to leave out')
    parser.add_argument(
        '--output',
        type=Path,
        help="directory for Autobahn's own reports, which are kept (default: a temporary one, kept "
        'if a case fails)',
    )
    parser.add_argument(
        '--parallel', action='store_true', help='judge all targets at the same time, not in turns'
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=DEFAULT_TIMEOUT_SECONDS,
        help='seconds after which a run is ended (default: %(default).0f)',
    )
    return parser.parse_args(arguments)


def _servers(options: argparse.Namespace) -> list[tuple[str, AbstractContextManager[str]]]:
    if options.url:
        return [('url', nullcontext(options.url))]
    return [(name, TARGETS[name]()) for name in options.target or DEFAULT_TARGETS]


def _skip(reason: str) -> int:
    if os.environ.get('CI', '').lower() in ('true', '1', 'yes'):
        print(f'Failed, since this is CI: {reason}.', file=sys.stderr)
        return 1
    print(f'Skipped: {reason}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""What a run of the Autobahn test suite says, read more strictly than the suite does.

The suite counts only the cases that it ran, and passes a server that drops the connection instead
of closing it, or that answers a close frame by an empty one. Here a case that was planned and did
not run has failed, and the other two are reported.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.autobahn import AGENT

OK = 'OK'
NON_STRICT = 'NON-STRICT'
INFORMATIONAL = 'INFORMATIONAL'
NOT_RUN = 'NOT RUN'

_PASSED = frozenset({OK, NON_STRICT, INFORMATIONAL})

_CLOSE_OPCODE = '8'


@dataclass(frozen=True)
class CaseResult:
    """One case: what Autobahn says about the messages and about the closing."""

    name: str
    behavior: str
    behavior_close: str
    #: Close frames that the server sent.
    close_frames: int = 0
    close_code: int | None = None
    sent_close_frame: bool = False
    milliseconds: int = 0

    @property
    def group(self) -> int:
        """The number before the first dot."""
        return int(self.name.split('.')[0])

    @property
    def passed(self) -> bool:
        """Whether both the messages and the closing are right."""
        return self.behavior in _PASSED and self.behavior_close in _PASSED

    @property
    def is_plainly_ok(self) -> bool:
        """Whether there is nothing to report."""
        return self.behavior == self.behavior_close == OK and not self.remarks

    @property
    def remarks(self) -> list[str]:
        """What the suite lets pass, and what makes a result other than OK."""
        found = []
        if self.behavior == NOT_RUN:
            return ['planned, but not run']
        if not self.close_frames:
            found.append('connection dropped without a close frame')
        elif self.close_code is None:
            if self.sent_close_frame:
                found.append('close frame answered by an empty one')
            else:
                found.append('closed with an empty close frame')
        if self.close_frames > 1:
            found.append(f'{self.close_frames} close frames')
        return found


def read_results(output: Path, planned: Sequence[str]) -> list[CaseResult]:
    """Return a result for each planned case, in order, from the files of a run."""
    index = output / 'index.json'
    found: dict[str, Any] = {}
    if index.exists():
        found = json.loads(index.read_text(encoding='utf-8')).get(AGENT, {})
    results = []
    for name in planned:
        if name in found:
            details = json.loads((output / found[name]['reportfile']).read_text(encoding='utf-8'))
            results.append(_result(name, found[name], details))
        else:
            results.append(CaseResult(name, NOT_RUN, NOT_RUN))
    return results


def _result(name: str, summary: dict[str, Any], details: dict[str, Any]) -> CaseResult:
    return CaseResult(
        name=name,
        behavior=summary['behavior'],
        behavior_close=summary['behaviorClose'],
        close_frames=details['rxFrameStats'].get(_CLOSE_OPCODE, 0),
        close_code=details['remoteCloseCode'],
        sent_close_frame=details['txFrameStats'].get(_CLOSE_OPCODE, 0) > 0,
        # Of a case whose handshake failed it is the time since 1970.
        milliseconds=summary['duration'] if _was_opened(details) else 0,
    )


def _was_opened(details: dict[str, Any]) -> bool:
    response: str = details['httpResponse']
    return response.split(' ')[1:2] == ['101']


def format_report(results: Sequence[CaseResult]) -> str:
    """Return the table of the groups and the list of what is not plainly OK."""
    lines = ['group   cases      OK  non-strict  informational  failed  not run  seconds']
    lines += [
        _row(str(group), [result for result in results if result.group == group])
        for group in sorted({result.group for result in results})
    ]
    lines.append(_row('all', results))
    remarkable = [result for result in results if not result.is_plainly_ok]
    if remarkable:
        lines += ['', 'Not plainly OK:']
        lines += [_remark(result) for result in remarkable]
    else:
        lines += [
            '',
            'All are plainly OK: nothing dropped, no close frame answered by an empty one.',
        ]
    return '\n'.join(lines)


def _row(label: str, results: Iterable[CaseResult]) -> str:
    results = list(results)
    counts = Counter(_column(result) for result in results)
    seconds = sum(result.milliseconds for result in results) / 1000
    return (
        f'{label:>5} {len(results):7} {counts[OK]:7} {counts[NON_STRICT]:11} '
        f'{counts[INFORMATIONAL]:14} {counts["failed"]:7} {counts[NOT_RUN]:8} {seconds:8.1f}'
    )


def _column(result: CaseResult) -> str:
    """Return the column that counts a result: the worse of messages and closing."""
    if result.behavior == NOT_RUN:
        return NOT_RUN
    if not result.passed:
        return 'failed'
    for column in (NON_STRICT, INFORMATIONAL):
        if column in (result.behavior, result.behavior_close):
            return column
    return OK


def _remark(result: CaseResult) -> str:
    remarks = ''.join(f'; {remark}' for remark in result.remarks)
    if result.behavior == NOT_RUN:
        return f'  {result.name}: not run'
    code = '' if result.close_code is None else f' ({result.close_code})'
    return f'  {result.name}: {result.behavior}, closing {result.behavior_close}{code}{remarks}'

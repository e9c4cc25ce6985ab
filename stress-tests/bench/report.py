"""Tables: of what was measured, and of what was to be reached; as text and as Markdown."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .results import Measurement, Results
from .scenarios import Scenario
from .targets import US, targets_of

# From there on, a faster server might not have been seen to be faster.
CLIENT_IS_THE_BOUND = 0.9
COMPLETE = 0.999
LOWER_IS_BETTER = ('latency_', 'server_cpu_', 'kb_', 'sent_bytes_', 'back_', 'reach_')


class Table(NamedTuple):
    """A title, the titles of the columns, and rows of as many texts each."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_markdown(self) -> str:
        """Return it under a heading, aligned, so that it can be read as it is."""
        columns = zip(self.head, *self.rows, strict=True)
        widths = [max(3, *map(len, column)) for column in columns]
        rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
        heading = f'### {self.title}\n\n' if self.title else ''
        return heading + '\n'.join(
            f'| {" | ".join(_aligned(line, widths))} |' for line in [self.head, rule, *self.rows]
        )


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(line, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def print_measurement(measurement: Measurement) -> None:
    """Print one line about a measurement that has just been made."""
    text = measurement.failure or (measurement.skipped and f'skipped: {measurement.skipped}')
    text = ' '.join(text.splitlines())
    if not text:
        text = '  '.join(f'{name} {number(value)}' for name, value in measurement.metrics.items())
    print(
        f'{measurement.round}  {measurement.scenario:<20} {measurement.contender:<24} {text}',
        flush=True,
    )


def scenario_tables(results: Results, scenarios: Sequence[Scenario]) -> Iterator[Table]:
    """Yield one table of medians and ratios per scenario that was run."""
    for scenario in scenarios:
        names = results.contenders(scenario.name)
        if names and not scenario.metrics:
            yield _figures_table(results, scenario.name, scenario.title)
        elif names:
            first = next(iter(scenario.metrics))
            yield Table(
                scenario.title,
                ['', *scenario.metrics.values(), 'ws4redis is'],
                [_row(results, scenario, name, first) for name in names],
            )


def _figures_table(results: Results, name: str, title: str) -> Table:
    """Return the table of what a script has told, which is of ws4redis alone."""
    figures = dict.fromkeys(name for each in results.of(name, US) for name in each.metrics)
    rows = [[figure, _cell(results.median(name, US, figure))] for figure in figures]
    return Table(title, [_remarks(results, name, US).strip(), 'measured'], rows)


def targets_table(results: Results) -> Table:
    """Return the table of what was to be reached."""
    rows = []
    for target in targets_of(results):
        value = target.measured(results)
        rival = results.titles.get(target.rival, target.rival)
        rows.append(
            [
                target.title,
                f'{target.bound} {number(target.wanted)}' + (f' × {rival}' if rival else ''),
                _cell(value),
                target.verdict(value),
            ]
        )
    return Table('Targets', ['', 'wanted', 'measured', ''], rows)


def _cell(value: float | None) -> str:
    return '–' if value is None else number(value)


def number(value: float) -> str:
    """Return a number with three significant digits, at least."""
    if abs(value) >= 100:
        return f'{value:,.0f}'
    return f'{value:.3g}'


def _row(results: Results, scenario: Scenario, name: str, first: str) -> list[str]:
    cells = [_cell(results.median(scenario.name, name, metric)) for metric in scenario.metrics]
    return [
        results.titles.get(name, name) + _remarks(results, scenario.name, name),
        *cells,
        _ratio(results, scenario.name, name, first),
    ]


def _ratio(results: Results, scenario: str, name: str, metric: str) -> str:
    ours = results.median(scenario, US, metric)
    theirs = results.median(scenario, name, metric)
    if name == US or not ours or not theirs:
        return ''
    if metric.startswith(LOWER_IS_BETTER):
        return f'{number(ours / theirs)} × that'
    return f'{number(ours / theirs)} × as fast'


def _remarks(results: Results, scenario: str, name: str) -> str:
    remarks = []
    measurements = results.of(scenario, name)
    failed = sum(bool(measurement.failure) for measurement in measurements)
    skipped = sum(bool(measurement.skipped) for measurement in measurements)
    if skipped == len(measurements):
        remarks.append('not there')
    elif failed:
        remarks.append('failed' if failed == len(measurements) else f'failed {failed} times')
    if len(measurements) - failed - skipped == 1 and results.rounds() > 1:
        remarks.append('one round')
    complete = results.median(scenario, name, 'complete_share')
    if complete is not None and complete < COMPLETE:
        remarks.append(f'{complete:.0%} arrived in time')
    busy = results.median(scenario, name, 'client_busy_share')
    if busy is not None and busy >= CLIENT_IS_THE_BOUND:
        remarks.append('client busy')
    return f' ({", ".join(remarks)})' if remarks else ''

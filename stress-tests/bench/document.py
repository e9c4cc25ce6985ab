"""Insert a run's results into the documentation."""

from pathlib import Path

from . import report
from .contenders import REPOSITORY
from .results import Results
from .scenarios import make_scenarios

PAGE = REPOSITORY / 'docs' / 'explanation' / 'benchmarks.md'
BEGIN = '<!-- results: begin -->'
END = '<!-- results: end -->'


def insert(results: Results, *, page: Path = PAGE) -> None:
    """Replace what is between the lines `BEGIN` and `END` of a Markdown file.

    Raises:
        ValueError: the page has no markers.
    """
    text = page.read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{page} has no lines {BEGIN} and {END}')
    page.write_text(f'{head}{BEGIN}\n\n{_results(results)}\n\n{END}{tail}')


def _results(results: Results) -> str:
    machine = ', '.join(f'{name} {value}' for name, value in results.machine.items())
    rounds = max(measurement.round for measurement in results.measurements)
    tables = [report.targets_table(results), *report.scenario_tables(results, make_scenarios())]
    return '\n\n'.join(
        [
            f'Machine and versions: {machine}.',
            f'Medians of {rounds} round{"s" if rounds > 1 else ""}; command: `{results.command}`.',
            *(table.as_markdown() for table in tables),
        ]
    )

"""Insert a run's results into the documentation: tables and chart."""

from pathlib import Path

from . import chart, report
from .contenders import REPOSITORY
from .results import Results
from .scenarios import make_scenarios

PAGE = REPOSITORY / 'docs' / 'explanation' / 'benchmarks.md'
CHART = PAGE.with_suffix('.svg')
BEGIN = '<!-- results: begin -->'
END = '<!-- results: end -->'


def insert(results: Results, *, page: Path = PAGE, picture: Path = CHART) -> None:
    """Replace what is between the page's markers, and draw the chart anew.

    Args:
        results: what was measured.
        page: a Markdown file with the lines `BEGIN` and `END`.
        picture: the SVG file beside it.

    Raises:
        ValueError: the page has no markers.
    """
    text = page.read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{page} has no lines {BEGIN} and {END}')
    page.write_text(f'{head}{BEGIN}\n\n{_results(results, picture.name)}\n\n{END}{tail}')
    picture.write_text(chart.draw(results))


def _results(results: Results, picture: str) -> str:
    machine = ', '.join(f'{name} {value}' for name, value in results.machine.items())
    rounds = max(measurement.round for measurement in results.measurements)
    tables = [report.targets_table(results), *report.scenario_tables(results, make_scenarios())]
    return '\n\n'.join(
        [
            f'![Bars: ws4redis beside the other contenders]({picture})',
            f'Machine and versions: {machine}.',
            f'Medians of {rounds} round{"s" if rounds > 1 else ""}; command: `{results.command}`.',
            *(table.as_markdown() for table in tables),
        ]
    )

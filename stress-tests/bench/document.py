"""Insert a run's results into the documentation, and their summary into README."""

from pathlib import Path

from . import report
from .contenders import REPOSITORY
from .results import Results
from .scenarios import make_scenarios
from .targets import CPU, HANDSHAKES, MEMORY, NATIVE, RATE, US

PAGE = REPOSITORY / 'docs' / 'explanation' / 'benchmarks.md'
README = REPOSITORY / 'README.md'
BEGIN = '<!-- figures: begin -->'
END = '<!-- figures: end -->'
IN_README = {
    'this': '',
    'Bun (uWebSockets)': 'bun',
    'Nchan': 'nchan',
    'Node `ws`': 'node-ws',
    'Channels on uvicorn': 'channels',
}


def insert(results: Results) -> None:
    """Write the figures into the page and into README."""
    _replace(PAGE, _results(results))
    _replace(README, _summary(results))


def _replace(path: Path, figures: str) -> None:
    """Replace what is between the lines `BEGIN` and `END` of a Markdown file.

    Raises:
        ValueError: the file has no markers.
    """
    head, begin, rest = path.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{path} has no lines {BEGIN} and {END}')
    path.write_text(f'{head}{BEGIN}\n\n{figures}\n\n{END}{tail}')


def _results(results: Results) -> str:
    machine = ', '.join(f'{name} {value}' for name, value in results.machine.items())
    rounds = results.rounds()
    tables = [report.targets_table(results), *report.scenario_tables(results, make_scenarios())]
    return '\n\n'.join(
        [
            f'Machine and versions: {machine}.',
            f'Medians of {rounds} round{"s" if rounds > 1 else ""}; command: `{results.command}`.',
            *(table.as_markdown() for table in tables),
        ]
    )


def _summary(results: Results) -> str:
    """Return the table of README: one line for what counts most."""

    def line(title: str, scenario: str, metric: str, unit: str, ours: str = US) -> list[str]:
        cells = []
        for name in (contender or ours for contender in IN_README.values()):
            value = results.median(scenario, name, metric)
            has_failed = any(each.failure for each in results.of(scenario, name))
            # Three digits are what a summary is good for.
            shown = report.number(float(f'{value:.3g}')) + unit if value else ''
            cells.append(shown or ('failed' if has_failed else '–'))
        return [title, *cells]

    rows = [
        line('deliveries per second of a burst to 5,000 websockets', 'burst-5000', RATE, ''),
        line('CPU of a delivery, 20 messages/s to 1,000 websockets', 'steady-1000', CPU, ' µs'),
        line(
            'anonymous handshakes per second (`run_wsserver`)', 'handshakes', HANDSHAKES, '', NATIVE
        ),
        line('memory of an idle websocket', 'memory', MEMORY, ' KB'),
    ]
    head = f'one server process, {results.machine["cores"]} cores'
    return report.Table('', [head, *IN_README], rows).as_markdown()

"""The chart for the documentation: small multiples of bars, as SVG.

Written by hand, so that the documentation needs no plotting library. Each panel has a logarithmic
axis where the contenders differ by more than a factor of 30, and says so.
"""

import math
from dataclasses import dataclass
from html import escape

from .report import number
from .results import Results
from .targets import US

COLUMNS = 2
PANEL_WIDTH = 500
GAP = 34
MARGIN = 28
TITLE_HEIGHT = 78
PANEL_HEAD = 46
BAR_HEIGHT = 15
BAR_STEP = 23
LABEL_WIDTH = 180
VALUE_WIDTH = 88
LOGARITHMIC_FROM = 30.0
NAMESPACE = 'http://www.w3.org/2000/svg'
TITLE = 'ws4redis beside what one would pick instead'

STYLE = """
  svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
  .paper { fill: #ffffff }
  .title { font-size: 21px; font-weight: 600; fill: #1c2330 }
  .subtitle { font-size: 13px; fill: #667085 }
  .panel { font-size: 14.5px; font-weight: 600; fill: #1c2330 }
  .unit { font-size: 12px; fill: #667085 }
  .label, .value { font-size: 12.5px; fill: #475467; font-variant-numeric: tabular-nums }
  .label { text-anchor: end }
  .ours { font-weight: 700; fill: #0b6e4f }
  .axis { stroke: #d0d5dd; stroke-width: 1 }
  .bar { fill: #b6bfcc } .bar-ours { fill: #12a150 } .bar-floor { fill: #8da2bf }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #10151d } .title, .panel { fill: #eef1f6 } .subtitle, .unit { fill: #98a2b3 }
    .label, .value { fill: #c3cad6 } .ours { fill: #4fd18b } .axis { stroke: #344054 }
    .bar { fill: #4b586b } .bar-ours { fill: #2fbf71 } .bar-floor { fill: #5d7698 }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One group of bars.

    Attributes:
        title: what is shown.
        unit: of the numbers, and which side is the good one.
        scenario: where the numbers are from.
        metric: which numbers.
    """

    title: str
    unit: str
    scenario: str
    metric: str


PANELS = (
    Panel('Burst fan-out, 5,000 websockets', 'delivered/s', 'burst-5000', 'delivered_per_second'),
    Panel(
        'Steady fan-out, 1,000 websockets', 'median latency, ms', 'steady-1000', 'latency_median_ms'
    ),
    Panel(
        'Private messages, 10,000 users', 'delivered/s at most', 'private',
        'peak_delivered_per_second',
    ),
    Panel(
        'Steady fan-out, 1,000 websockets', 'server CPU, µs per delivery', 'steady-1000',
        'server_cpu_us_per_delivery',
    ),
    Panel('Handshakes, anonymous', 'handshakes/s', 'handshakes', 'handshakes_per_second'),
    Panel('Memory, 15,000 idle websockets', 'KB per websocket', 'memory', 'kb_per_websocket'),
    Panel('Upstream, 1,000 clients', 'messages/s', 'upstream', 'messages_per_second'),
    Panel(
        'Compressed fan-out, 2 KB JSON to 1,000', 'delivered/s', 'compressed',
        'delivered_per_second',
    ),
)  # fmt: skip


def draw(results: Results) -> str:
    """Return the chart as the text of an SVG file."""
    panels = [panel for panel in PANELS if _bars(results, panel)]
    heights = [
        max(_height(results, panel) for panel in panels[row : row + COLUMNS])
        for row in range(0, len(panels), COLUMNS)
    ]
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    height = TITLE_HEIGHT + sum(heights) + GAP * max(0, len(heights) - 1) + MARGIN
    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="{NAMESPACE}" viewBox="0 0 {width} {height}" {size} role="img">',
        f'<title>{TITLE}</title>',
        f'<style>{STYLE}</style>',
        f'<rect class="paper" {size} rx="10"/>',
        _text('title', MARGIN, 40, TITLE),
        _text('subtitle', MARGIN, 61, _subtitle(results)),
    ]
    top = TITLE_HEIGHT
    for index, panel in enumerate(panels):
        row, column = divmod(index, COLUMNS)
        left = MARGIN + column * (PANEL_WIDTH + GAP)
        parts += _draw_panel(results, panel, left, top)
        if column == COLUMNS - 1:
            top += heights[row] + GAP
    return '\n'.join([*parts, '</svg>', ''])


def _subtitle(results: Results) -> str:
    machine = results.machine
    rounds = max(measurement.round for measurement in results.measurements)
    return (
        f'one server process each · {machine["processor"]}, {machine["cores"]} cores for server, '
        f'client and Redis · medians of {rounds} round{"s" if rounds > 1 else ""}'
    )


def _bars(results: Results, panel: Panel) -> list[tuple[str, float]]:
    return [
        (name, value)
        for name in results.contenders(panel.scenario)
        if (value := results.median(panel.scenario, name, panel.metric)) is not None and value > 0
    ]


def _height(results: Results, panel: Panel) -> int:
    return PANEL_HEAD + BAR_STEP * len(_bars(results, panel))


def _lower_is_better(panel: Panel) -> bool:
    return 'per_second' not in panel.metric


def _draw_panel(results: Results, panel: Panel, left: int, top: int) -> list[str]:
    bars = sorted(
        _bars(results, panel), key=lambda bar: bar[1], reverse=not _lower_is_better(panel)
    )
    values = [value for _, value in bars]
    logarithmic = max(values) / min(values) > LOGARITHMIC_FROM
    better = 'less is better' if _lower_is_better(panel) else 'more is better'
    unit = f'{panel.unit} – {better}' + (', logarithmic scale' if logarithmic else '')
    axis = left + LABEL_WIDTH
    first = top + PANEL_HEAD
    last = first + BAR_STEP * len(bars)
    parts = [
        _text('panel', left, top + 14, panel.title),
        _text('unit', left, top + 32, unit),
        f'<line class="axis" x1="{axis}" x2="{axis}" y1="{first - 4}" y2="{last - 4}"/>',
    ]
    for index, (name, value) in enumerate(bars):
        y = first + BAR_STEP * index
        length = _length(value, values, logarithmic=logarithmic)
        ours = ' ours' if name == US else ''
        shade = {US: 'bar-ours', 'floor': 'bar-floor'}.get(name, 'bar')
        bar = f'x="{axis}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT}"'
        parts += [
            _text('label' + ours, axis - 8, y + 12, results.titles.get(name, name)),
            f'<rect class="{shade}" {bar} rx="2"/>',
            _text('value' + ours, axis + length + 7, y + 12, number(value)),
        ]
    return parts


def _text(kind: str, x: float, y: float, content: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(content)}</text>'


def _length(value: float, values: list[float], *, logarithmic: bool) -> float:
    longest = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
    if not logarithmic:
        return max(1.5, longest * value / max(values))
    # The axis begins below the smallest value, so that each has a bar.
    least = 10 ** math.floor(math.log10(min(values) * 0.8))
    return longest * math.log10(value / least) / math.log10(max(values) / least)

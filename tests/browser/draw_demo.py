"""Draw the moving picture of the README anew: `python tests/browser/draw_demo.py`.

Two browsers have the demo's page open that breaks things, and one of them is cut off. What each of
them received, and when, is recorded, and drawn as an SVG that moves.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))

from tests.browser.chromium import chromium  # noqa: E402
from tests.demo_server import Demo  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURE = ROOT / 'docs' / 'images' / 'demo.svg'

CUT_AFTER_MS = 2500
RECORDED_MS = 8500
# The end stays to be read before it begins anew.
REST_MS = 2500
CYCLE_MS = RECORDED_MS + REST_MS
FLIGHT_MS = 220

# The longest delay before the reconnection, so that there is something to miss.
LONGEST_DELAY = 'Math.random = () => 0.999;'
RECORD = """
    window.recorded = [];
    const note = (what, more) => window.recorded.push({what, more, at: Date.now()});
    new MutationObserver((changes) => changes.forEach((change) =>
        change.addedNodes.forEach((square) => note(square.className, +square.dataset.number))
    )).observe(document.getElementById('squares'), {childList: true});
    const connection = document.getElementById('connection');
    new MutationObserver(() => note(connection.dataset.state, 0))
        .observe(connection, {attributes: true, attributeFilter: ['data-state']});
"""


@dataclass(frozen=True)
class Arrival:
    """A message that reached a browser."""

    number: int
    at_ms: float
    was_recovered: bool


@dataclass(frozen=True)
class Recording:
    """What a browser has seen."""

    arrivals: list[Arrival]
    # When it had no connection.
    away: tuple[float, float] | None


def record(demo: Demo, executable: str) -> list[Recording]:
    """Let two browsers watch, cut one of them off, and return what both have seen."""
    with chromium(executable) as browser:
        pages = [browser.new_context().new_page() for _browser in range(2)]
        for page in pages:
            page.add_init_script(LONGEST_DELAY)
            page.goto(f'{demo.url}/break/')
        for page in pages:
            page.wait_for_selector('.square.live')
        for page in pages:
            page.evaluate(RECORD)
        began_at = pages[0].evaluate('Date.now()')
        pages[0].wait_for_timeout(CUT_AFTER_MS)
        pages[1].click('#cut')
        pages[0].wait_for_timeout(RECORDED_MS - CUT_AFTER_MS)
        return cut_to_size([recording_of(page, began_at) for page in pages])


def recording_of(page: Page, began_at: float) -> Recording:
    arrivals = []
    lost = back = None
    for event in page.evaluate('window.recorded'):
        at_ms = event['at'] - began_at
        if event['what'].startswith('square') and at_ms >= 0:
            arrivals.append(Arrival(event['more'], at_ms, 'recovered' in event['what']))
        elif event['what'] == 'closed':
            lost = at_ms
        elif event['what'] == 'connected' and lost is not None:
            back = at_ms
    return Recording(arrivals, None if lost is None or back is None else (lost, back))


def cut_to_size(recordings: list[Recording]) -> list[Recording]:
    """Leave what every browser could have seen: they began, and ended, between two messages."""
    first = max(recording.arrivals[0].number for recording in recordings)
    last = min(recording.arrivals[-1].number for recording in recordings)
    return [
        replace(
            recording,
            arrivals=[seen for seen in recording.arrivals if first <= seen.number <= last],
        )
        for recording in recordings
    ]


# Drawing

WIDTH, HEIGHT = 860, 330
SOURCE_X, SOURCE_Y = 96, 166
WINDOW_X, WINDOW_WIDTH, WINDOW_HEIGHT = 300, 536, 132
WINDOW_YS = (20, 178)
SQUARE, STEP, PER_ROW = 18, 24, 20

STYLE = """
    text { font: 15px system-ui, sans-serif; fill: #14211f; }
    .soft { fill: #51625e; font-size: 13px; }
    .big { font-size: 17px; font-weight: 700; }
    .window { fill: #fff; stroke: #d8e0de; }
    .bar { fill: #eef2f1; }
    .wire { stroke: #0f766e; stroke-width: 2; }
    .cut { stroke: #b91c1c; stroke-width: 2; stroke-dasharray: 5 6; }
    .live { fill: #0f766e; }
    .back { fill: #fff; stroke: #b45309; stroke-width: 5; }
    .good { fill: #166534; font-weight: 600; }
    .bad { fill: #b91c1c; font-weight: 600; }
    .warm { fill: #92400e; font-weight: 600; }
    .ground { fill: #f4f7f6; }
    .source { fill: #0f766e; } .on { fill: #fff; font-weight: 700; }
    .m { animation: CYCLEms linear infinite both; }
    @media (prefers-reduced-motion: reduce) {
        .m { animation: none; } .dot, .away { opacity: 0; }
    }
"""


class Film:
    """Elements that are seen for a part of the cycle."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.elements: list[str] = []

    def still(self, element: str) -> None:
        self.elements.append(element)

    def shown(
        self, element: str, begin_ms: float, end_ms: float = CYCLE_MS, *, kind: str = ''
    ) -> None:
        """Show an element from one moment to another."""
        begin, end = percent(begin_ms), percent(end_ms)
        frames = f'0%,{begin}{{opacity:0}}{percent(begin_ms + 30)},{end}{{opacity:1}}'
        if end_ms < CYCLE_MS:
            frames += f'{percent(end_ms + 30)},to{{opacity:0}}'
        self._animate(element, frames, f'm {kind}')

    def flying(self, element: str, move: str, arrives_ms: float) -> None:
        """Let an element fly, so that it arrives at a moment."""
        begin, end = percent(arrives_ms - FLIGHT_MS), percent(arrives_ms)
        frames = (
            f'0%,{begin}{{opacity:0;transform:none}}{percent(arrives_ms - FLIGHT_MS + 10)}'
            f'{{opacity:1}}{end}{{opacity:1;transform:{move}}}'
            f'{percent(arrives_ms + 10)},to{{opacity:0;transform:{move}}}'
        )
        self._animate(element, frames, 'm dot')

    def _animate(self, element: str, frames: str, classes: str) -> None:
        name = f'k{len(self.rules)}'
        self.rules.append(f'@keyframes {name}{{{frames}}}')
        self.elements.append(f'<g class="{classes}" style="animation-name:{name}">{element}</g>')

    def svg(self) -> str:
        style = STYLE.replace('CYCLE', str(CYCLE_MS)) + ''.join(self.rules)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="t">'
            '<title id="t">A message goes to two browsers. One is cut off, comes back, and gets '
            f'what it missed.</title><style>{style}</style>{"".join(self.elements)}</svg>\n'
        )


def percent(at_ms: float) -> str:
    return f'{max(0, min(at_ms, CYCLE_MS)) / CYCLE_MS * 100:.2f}%'


def draw(recordings: list[Recording]) -> str:
    """Return the picture of what browsers have seen."""
    film = Film()
    film.still(f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="16"/>')
    for number, (recording, top) in enumerate(zip(recordings, WINDOW_YS, strict=True)):
        draw_browser(film, recording, top, name=f'Browser {number + 1}')
    film.still(
        f'<rect class="source" x="{SOURCE_X - 72}" y="{SOURCE_Y - 36}" width="144" height="72" '
        f'rx="14"/><text class="on" x="{SOURCE_X}" y="{SOURCE_Y - 4}" text-anchor="middle">'
        f'publish_json()</text><text class="on" x="{SOURCE_X}" y="{SOURCE_Y + 18}" '
        'text-anchor="middle" style="font-size:13px;font-weight:400">4 a second</text>'
    )
    return film.svg()


def draw_browser(film: Film, recording: Recording, top: int, *, name: str) -> None:
    middle = top + WINDOW_HEIGHT / 2
    line = f'x1="{SOURCE_X + 72}" y1="{SOURCE_Y}" x2="{WINDOW_X}" y2="{middle}"'
    move = f'translate({WINDOW_X - SOURCE_X - 72}px,{middle - SOURCE_Y}px)'
    film.still(
        f'<rect class="window" x="{WINDOW_X}" y="{top}" width="{WINDOW_WIDTH}" '
        f'height="{WINDOW_HEIGHT}" rx="12"/><path class="bar" d="M{WINDOW_X + 1} {top + 34}v-21'
        f'a12 12 0 0 1 12-12h{WINDOW_WIDTH - 26}a12 12 0 0 1 12 12v21z"/>'
        f'<text class="big" x="{WINDOW_X + 18}" y="{top + 24}">{name}</text>'
    )
    right = f'x="{WINDOW_X + WINDOW_WIDTH - 18}" y="{top + 24}" text-anchor="end"'
    connected = f'<line class="wire" {line}/><text class="good" {right}>connected</text>'
    if recording.away is None:
        film.still(connected)
    else:
        lost, back = recording.away
        film.shown(connected, -100, lost, kind='away')
        film.shown(connected, back)
        film.shown(
            f'<line class="cut" {line}/><text class="bad" {right}>connection lost</text>',
            lost,
            back,
            kind='away',
        )
    for place, arrival in enumerate(recording.arrivals):
        x = WINDOW_X + 24 + place % PER_ROW * STEP
        y = top + 48 + place // PER_ROW * STEP
        inset, size = (2.5, SQUARE - 5) if arrival.was_recovered else (0, SQUARE)
        film.flying(
            f'<circle class="live" cx="{SOURCE_X + 72}" cy="{SOURCE_Y}" r="5"/>',
            move,
            arrival.at_ms,
        )
        film.shown(
            f'<rect class="{"back" if arrival.was_recovered else "live"}" x="{x + inset}" '
            f'y="{y + inset}" width="{size}" height="{size}" rx="3"/>',
            arrival.at_ms,
        )
    draw_sum(film, recording, top)


def draw_sum(film: Film, recording: Recording, top: int) -> None:
    numbers = [arrival.number for arrival in recording.arrivals]
    missing = numbers[-1] - numbers[0] + 1 - len(set(numbers))
    recovered = [arrival for arrival in recording.arrivals if arrival.was_recovered]
    text = f'x="{WINDOW_X + 24}" y="{top + WINDOW_HEIGHT - 12}"'
    said = f'{len(numbers)} received'
    if recovered:
        film.shown(
            f'<text class="warm" {text}>{len(recovered)} recovered</text>',
            recovered[0].at_ms,
            RECORDED_MS,
            kind='away',
        )
        said += f', {len(recovered)} of them recovered'
    said += f', {missing} missing'
    film.shown(f'<text class="soft" {text}>{said}</text>', RECORDED_MS + 60)


def main() -> None:
    executable = shutil.which('chromium') or shutil.which('google-chrome')
    if executable is None:
        raise SystemExit('chromium is not installed')
    with (
        tempfile.TemporaryDirectory() as scratch,
        Demo(Path(scratch), options=['--own-redis']) as demo,
    ):
        recordings = record(demo, executable)
    PICTURE.write_text(draw(recordings), encoding='utf-8')


if __name__ == '__main__':
    main()
    print(f'{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes')

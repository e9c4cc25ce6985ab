"""Measurements, their medians, and the JSON file they are kept in."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one scenario with one contender.

    Attributes:
        scenario: its name.
        contender: its name.
        round: counted from 1.
        metrics: numbers by name; the name ends with the unit.
        failure: why there are none, empty if all went well.
        skipped: why it was not tried, empty if it was.
        seconds: how long it took, with the starts of its servers.
    """

    scenario: str
    contender: str
    round: int
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ''
    skipped: str = ''
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, int]:
        """Return which of all measurements it is."""
        return self.scenario, self.contender, self.round


@dataclass(frozen=True, slots=True)
class Results:
    """All measurements of a run of the benchmark, and where they were made.

    Attributes:
        machine: processor, kernel, versions.
        command: the command line.
        titles: contenders' titles by name.
        measurements: in the order in which they were made.
    """

    machine: dict[str, str]
    command: str
    titles: dict[str, str]
    measurements: list[Measurement] = field(default_factory=list)

    def median(self, scenario: str, contender: str, metric: str) -> float | None:
        """Return the median over the rounds, `None` if there is no such measurement."""
        values = [
            measurement.metrics[metric]
            for measurement in self.of(scenario, contender)
            if metric in measurement.metrics
        ]
        return statistics.median(values) if values else None

    def of(self, scenario: str, contender: str) -> list[Measurement]:
        """Return the measurements of one scenario with one contender."""
        return [
            measurement
            for measurement in self.measurements
            if measurement.scenario == scenario and measurement.contender == contender
        ]

    def rounds(self) -> int:
        """Return how many rounds there were at most."""
        return max((measurement.round for measurement in self.measurements), default=0)

    def scenarios(self) -> list[str]:
        """Return the names of the scenarios that were run."""
        return list(dict.fromkeys(measurement.scenario for measurement in self.measurements))

    def contenders(self, scenario: str | None = None) -> list[str]:
        """Return the names of the contenders that were run, in this scenario or in any."""
        return list(
            dict.fromkeys(
                measurement.contender
                for measurement in self.measurements
                if scenario is None or measurement.scenario == scenario
            )
        )

    def save(self, path: Path) -> None:
        """Write everything to a JSON file, which is never there by halves."""
        unfinished = path.with_suffix('.unfinished')
        unfinished.write_text(json.dumps(asdict(self), indent=1) + '\n')
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> 'Results':
        """Read what `save` has written."""
        content: dict[str, Any] = json.loads(path.read_text())
        measurements = [Measurement(**measurement) for measurement in content.pop('measurements')]
        return cls(**content, measurements=measurements)


def merged(runs: Sequence[Results]) -> Results:
    """Return the results of several runs; what a later one measured replaces what was before."""
    first, *later = runs
    for run in later:
        anew = {measurement.key[:2] for measurement in run.measurements}
        kept = [each for each in first.measurements if each.key[:2] not in anew]
        first.measurements[:] = kept + run.measurements
        first.titles.update(run.titles)
        first.machine.update(run.machine)
    return first


def describe_machine(versions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what a reader must know of this machine to judge the numbers."""
    return {
        'processor': _processor(),
        'cores': str(os.cpu_count()),
        'memory': f'{os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30:.0f} GiB',
        # Without what a distribution or a host adds to the version.
        'kernel': platform.release().partition('-')[0],
        'load before': f'{os.getloadavg()[0]:.1f}',
        'Python': platform.python_version(),
        **dict(versions),
    }


def installed_versions(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Yield name and version of the distributions that are installed."""
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _processor() -> str:
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.machine()

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
    """

    scenario: str
    contender: str
    round: int
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ''
    skipped: str = ''


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
        """Write everything to a JSON file."""
        path.write_text(json.dumps(asdict(self), indent=1) + '\n')

    @classmethod
    def load(cls, path: Path) -> 'Results':
        """Read what `save` has written."""
        content: dict[str, Any] = json.loads(path.read_text())
        measurements = [Measurement(**measurement) for measurement in content.pop('measurements')]
        return cls(**content, measurements=measurements)


def describe_machine(versions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what a reader must know of this machine to judge the numbers."""
    return {
        'processor': _processor(),
        'cores': str(os.cpu_count()),
        'memory': f'{os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30:.0f} GiB',
        # Without what a distribution or a host adds to the version.
        'kernel': platform.release().partition('-')[0],
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

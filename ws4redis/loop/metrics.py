"""Metrics of a process: declared once, at the top of the module that counts.

    GAPS = counter('gaps', 'Gaps that were told to clients', label='cause')
    ...
    GAPS.add(1, 'trimmed')

Counting is plain arithmetic, in the loop or under a lock of the caller; reading is safe in any
thread. The values are those of the process: a fork begins with what its parent had counted, which
is nothing, since the hub counts and is made after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Kind(StrEnum):
    """What a metric is, in Prometheus's words."""

    COUNTER = 'counter'
    GAUGE = 'gauge'
    HISTOGRAM = 'histogram'


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is known of a metric without its value; ``label`` names what its values go by."""

    name: str
    kind: Kind
    about: str
    label: str | None = None
    bounds: tuple[float, ...] = ()


class Counter:
    """A number that grows; with a label, one for each of its values."""

    __slots__ = ('declaration', 'value', 'values')

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.value = 0
        self.values: dict[str, int] = {}

    def add(self, number: int = 1, of: str | None = None) -> None:
        """Count some more; ``of`` is the value of the label, from a set that the code knows.

        Never anything that clients choose: each value is a time series for ever.
        """
        if of is None:
            self.value += number
        else:
            self.values[of] = self.values.get(of, 0) + number

    def read(self) -> Any:
        return self.value if self.declaration.label is None else dict(self.values)


class Histogram:
    """How many values lie below each bound, how many there are, and their sum."""

    __slots__ = ('_counts', 'declaration', 'sum')

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._counts = [0] * (len(declaration.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.declaration.bounds, value)] += 1
        self.sum += value

    def read(self) -> dict[str, Any]:
        return {'counts': list(self._counts), 'sum': round(self.sum, 6)}


Metric = Counter | Histogram

declarations: Final[dict[str, Declaration]] = {}
_metrics: Final[dict[str, Metric]] = {}


def declare(declaration: Declaration) -> Declaration:
    """Make a metric known whose values come from elsewhere; each name is declared once."""
    if declaration.name in declarations:
        raise ValueError(f'the metric {declaration.name!r} is declared twice')
    declarations[declaration.name] = declaration
    return declaration


def counter(name: str, about: str, *, label: str | None = None) -> Counter:
    metric = Counter(declare(Declaration(name, Kind.COUNTER, about, label)))
    _metrics[name] = metric
    return metric


def histogram(name: str, about: str, bounds: Sequence[float]) -> Histogram:
    """Declare a histogram; ``bounds`` are the upper ones of its buckets, in order."""
    metric = Histogram(
        declare(Declaration(name, Kind.HISTOGRAM, about, bounds=tuple(sorted(bounds))))
    )
    _metrics[name] = metric
    return metric


def read_metrics() -> Mapping[str, Any]:
    """Return the values of this process by name; what has a label as a dictionary."""
    return {name: metric.read() for name, metric in _metrics.items()}

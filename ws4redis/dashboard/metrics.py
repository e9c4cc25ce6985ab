"""The metrics of all processes in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from django.core.exceptions import ImproperlyConfigured

# These declare metrics.
import ws4redis.hub.metrics
import ws4redis.servers.snapshots  # noqa: F401
from ws4redis.broker.snapshots import Snapshot
from ws4redis.loop.metrics import Declaration, Kind, declarations

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.registry import Collector
except ImportError as exc:
    raise ImproperlyConfigured(
        'The metrics need prometheus-client: pip install django-websocket-redis[metrics]'
    ) from exc

__all__ = ['CONTENT_TYPE_LATEST', 'exposition']

PREFIX = 'ws4redis_'
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_FAMILIES: dict[Kind, type[Family]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


class _Snapshots(Collector):
    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterator[Family]:
        processes = GaugeMetricFamily(f'{PREFIX}processes', 'Processes with websockets')
        processes.add_metric([], len(self._snapshots))
        yield processes
        values = [(_label_of(snapshot), _values_of(snapshot)) for snapshot in self._snapshots]
        for declaration in declarations.values():
            yield _family_of(declaration, values)


def _label_of(snapshot: Snapshot) -> str:
    return f'{snapshot.get("host", "")}-{snapshot.get("pid", "")}'


def _values_of(snapshot: Snapshot) -> dict[str, Any]:
    parts = (snapshot.get(part) for part in ('statistics', 'metrics', 'rates'))
    return {
        name: value
        for part in parts
        if isinstance(part, Mapping)
        for name, value in part.items()
        if value is not None
    }


def _family_of(declaration: Declaration, values: Iterable[tuple[str, Mapping[str, Any]]]) -> Family:
    labels = ['process', declaration.label] if declaration.label else ['process']
    family = _FAMILIES[declaration.kind](
        f'{PREFIX}{declaration.name}', declaration.about, labels=labels
    )
    for process, value_of in values:
        value = value_of.get(declaration.name)
        # During an update the processes of two versions may tell different things.
        try:
            _add(family, declaration, process, value)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return family


def _add(family: Family, declaration: Declaration, process: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(family, HistogramMetricFamily):
        cumulative = list(accumulate(value['counts']))
        bounds = [*map(str, declaration.bounds), '+Inf']
        family.add_metric(
            [process],
            buckets=list(zip(bounds, cumulative, strict=True)),
            sum_value=float(value['sum']),
        )
    elif declaration.label:
        for label, number in value.items():
            family.add_metric([process, str(label)], float(number))
    else:
        family.add_metric([process], float(value))


def exposition(snapshots: Sequence[Snapshot]) -> bytes:
    """Return the metrics of all processes as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshots(snapshots))
    return generate_latest(registry)

from __future__ import annotations

import threading

import pytest

from ws4redis.loop.metrics import Counter, Declaration, Histogram, Kind, counter, declare


def test_a_counter_counts_and_with_a_label_by_its_values() -> None:
    plain = Counter(Declaration('x', Kind.COUNTER, 'X'))
    plain.add()
    plain.add(2)
    assert plain.read() == 3
    labelled = Counter(Declaration('x', Kind.COUNTER, 'X', label='cause'))
    labelled.add(1, 'trimmed')
    labelled.add(2, 'trimmed')
    labelled.add(1, 'epoch')
    assert labelled.read() == {'trimmed': 3, 'epoch': 1}


def test_a_histogram_counts_what_lies_below_its_bounds() -> None:
    lag = Histogram(Declaration('x', Kind.HISTOGRAM, 'X', bounds=(0.1, 1)))
    for value in (0.05, 0.1, 0.5, 7):
        lag.observe(value)
    assert lag.read() == {'counts': [2, 1, 1], 'sum': 7.65}


def test_a_metric_is_declared_once() -> None:
    with pytest.raises(ValueError, match="'open' is declared twice"):
        import ws4redis.hub.metrics  # noqa: F401

        declare(Declaration('open', Kind.GAUGE, 'Open'))
    with pytest.raises(ValueError, match='declared twice'):
        counter('loop_lag_seconds', 'Lag')


def test_values_may_be_read_in_any_thread_while_they_change() -> None:
    counts = Counter(Declaration('x', Kind.COUNTER, 'X', label='code'))
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            counts.add(1, str(number % 5000))
            number += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(200):
            counts.read()
    finally:
        stop.set()
        thread.join()

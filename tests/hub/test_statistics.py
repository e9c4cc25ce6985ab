"""The counts of a process."""

from __future__ import annotations

from ws4redis.hub.statistics import Statistics


def test_counts_start_at_zero_and_are_given_as_a_plain_dictionary() -> None:
    statistics = Statistics()
    counts = statistics.as_dict()
    assert counts['handshakes'] == {}
    assert counts['closes'] == {}
    assert all(not value for value in counts.values())
    assert set(counts) == set(Statistics.__slots__)


def test_handshakes_are_counted_by_status_and_closes_by_code() -> None:
    statistics = Statistics()
    statistics.handshakes[101] += 2
    statistics.handshakes[403] += 1
    statistics.closes[1000] += 1
    statistics.messages_sent += 5
    counts = statistics.as_dict()
    assert counts['handshakes'] == {101: 2, 403: 1}
    assert type(counts['handshakes']) is dict
    assert counts['closes'] == {1000: 1}
    assert counts['messages_sent'] == 5


def test_what_was_given_does_not_change_with_the_counts() -> None:
    statistics = Statistics()
    counts = statistics.as_dict()
    statistics.handshakes[101] += 1
    assert counts['handshakes'] == {}

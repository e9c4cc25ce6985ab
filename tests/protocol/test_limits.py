from __future__ import annotations

import pytest

from ws4redis.protocol.limits import Limits


def test_a_message_may_have_a_mebibyte_by_default() -> None:
    assert Limits().max_message_size == 1024 * 1024


def test_the_number_of_fragments_follows_from_the_size() -> None:
    assert Limits().max_fragments == 65536
    assert Limits(max_message_size=100).max_fragments == 1024
    assert Limits(max_fragments=7).max_fragments == 7


def test_compressed_a_message_of_the_largest_size_may_be_larger() -> None:
    limits = Limits(max_message_size=10_000)
    assert limits.max_received_bytes(compressed=False) == 10_000
    # Stored blocks, the worst that a sender may do: 5 bytes for each 16,383.
    assert limits.max_received_bytes(compressed=True) > 10_000 + 5


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Limits().max_message_size = 1  # type: ignore[misc]


@pytest.mark.parametrize('size', [0, -1])
def test_a_limit_that_lets_nothing_pass_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match='max_message_size'):
        Limits(max_message_size=size)

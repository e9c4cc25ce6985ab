from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from ws4redis.broker.keys import keys_of

NAMES = st.text(alphabet='ab{}:/%é', max_size=12).map(str.encode)


@settings(deadline=None)  # the table of tags is made once
@given(NAMES, st.sampled_from(['', 'site:', 'si{te:', 's{i}te:', '}{:']))
@example(b'a}b', '')
@example(b'{}x', '')
@example(b'x{y}z', '')
def test_all_names_of_a_channel_hash_to_the_slot_of_its_plain_name(
    channel: bytes, prefix: str
) -> None:
    keys = keys_of(channel, prefix)
    assert keys.plain == channel
    assert {key_slot(name) for name in keys} == {key_slot(channel)}
    assert len(set(keys)) == len(keys)


def test_the_names_begin_with_the_prefix() -> None:
    keys = keys_of(b'site:broadcast:chat', 'site:')
    assert keys.stream == b'site:ws4redis:stream:{site:broadcast:chat}'
    assert all(name.startswith(b'site:') for name in keys)

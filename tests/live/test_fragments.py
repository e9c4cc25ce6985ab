from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group

from ws4redis.live import Fragments
from ws4redis.live.fragments import turbo_stream
from ws4redis.test import MemoryBroker, publish_in_memory


@pytest.fixture
def memory() -> Iterator[MemoryBroker]:
    with publish_in_memory() as memory:
        yield memory


def test_a_fragment_is_a_turbo_stream_that_is_not_kept(memory: MemoryBroker) -> None:
    context = {'group': Group(name='<b>tea</b>'), 'live_id': 'group-7'}
    fragments = Fragments('staff', groups=['staff'])
    fragments.append('groups', 'live/group.html', context)
    fragments.remove('group-7')
    assert memory.published('staff', groups=['staff']) == [
        (
            b'<turbo-stream action="append" target="groups"><template>'
            b'<li id="group-7">&lt;b&gt;tea&lt;/b&gt;</li>\n</template></turbo-stream>'
        ),
        b'<turbo-stream action="remove" target="group-7"></turbo-stream>',
    ]
    assert [item.expire for item in memory.outbox] == [0, 0]


@pytest.mark.parametrize('action', ['append', 'prepend', 'replace', 'update'])
def test_each_action_renders_its_template(memory: MemoryBroker, action: str) -> None:
    change = getattr(Fragments('staff'), action)
    change('groups', 'live/group.html', {'live_id': 'x'})
    (message,) = memory.published('staff', broadcast=True)
    assert message.startswith(f'<turbo-stream action="{action}" target="groups">'.encode())
    assert b'<li id="x">' in message


def test_a_target_cannot_break_out_of_its_attribute() -> None:
    assert turbo_stream('remove', '"><script>') == (
        '<turbo-stream action="remove" target="&quot;&gt;&lt;script&gt;"></turbo-stream>'
    )


@pytest.mark.parametrize('target', ['', None, 7])
def test_a_target_that_is_no_id_is_refused(memory: MemoryBroker, target: Any) -> None:
    with pytest.raises(ValueError, match='target must be the id of an element'):
        Fragments('staff').remove(target)
    assert memory.outbox == []

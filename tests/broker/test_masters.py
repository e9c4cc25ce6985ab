"""Where the master is, as several threads ask the Sentinels for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.timeouts import SOON_SECONDS
from ws4redis.broker import masters
from ws4redis.broker.masters import Answer, Service
from ws4redis.settings.topologies import Node, Target, target_of

FORMER = (1, True, ('127.0.0.1', 7001))
NEW = (2, True, ('127.0.0.1', 7002))


class SlowSentinel:
    """Its first answer is that of before a failover, and takes until it is released."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def ask(self, target: Target, node: Node) -> Answer:
        if self.is_asked.is_set():
            return NEW
        self.is_asked.set()
        assert self.may_answer.wait(SOON_SECONDS)
        return FORMER


@pytest.fixture
def sentinel(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowSentinel]:
    slow = SlowSentinel()
    monkeypatch.setattr(masters, 'ask_sentinel', slow.ask)
    yield slow
    slow.may_answer.set()


def test_an_answer_that_comes_late_leads_nobody_back_to_the_former_master(
    sentinel: SlowSentinel,
) -> None:
    service = Service(target_of({'sentinels': [('127.0.0.1', 26379)], 'service_name': 'main'}))
    found = []
    slow = threading.Thread(target=lambda: found.append(service.find()))
    slow.start()
    assert sentinel.is_asked.wait(SOON_SECONDS)

    assert service.find() == NEW[2]
    sentinel.may_answer.set()
    slow.join(SOON_SECONDS)

    assert found == [NEW[2]]
    assert service.address == NEW[2]

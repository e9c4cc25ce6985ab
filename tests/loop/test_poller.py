"""The poller: epoll, and the selector that stands in for it."""

from __future__ import annotations

import select
import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.hub.rig import run_program
from ws4redis.loop.poller import (
    READABLE,
    WRITABLE,
    EpollPoller,
    Poller,
    SelectorPoller,
    make_poller,
)

POLLERS: dict[str, Callable[[], Poller]] = {
    'epoll': lambda: EpollPoller(select.epoll()),
    'selector': lambda: SelectorPoller(selectors.DefaultSelector(), selectors),
    'select': lambda: SelectorPoller(selectors.SelectSelector(), selectors),
}


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    poller = POLLERS[request.param]()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    yield ours, peer
    ours.close()
    peer.close()


def test_a_descriptor_is_readable_once_there_is_something_to_read(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = pair
    poller.register(ours.fileno(), READABLE)
    assert poller.poll(0) == []
    peer.send(b'x')
    assert poller.poll(1) == [(ours.fileno(), READABLE)]
    # Level triggered: as long as it is not read.
    assert poller.poll(0) == [(ours.fileno(), READABLE)]
    ours.recv(1)
    assert poller.poll(0) == []


def test_a_descriptor_is_writable_only_where_that_is_asked_for(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    poller.register(ours.fileno(), READABLE)
    assert poller.poll(0) == []
    poller.modify(ours.fileno(), READABLE | WRITABLE)
    assert poller.poll(1) == [(ours.fileno(), WRITABLE)]
    poller.modify(ours.fileno(), READABLE)
    assert poller.poll(0) == []


def test_watching_for_nothing_reports_nothing_and_can_be_undone(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = pair
    poller.register(ours.fileno(), READABLE)
    peer.send(b'x')
    poller.modify(ours.fileno(), 0)
    assert poller.poll(0) == []
    poller.modify(ours.fileno(), READABLE)
    assert poller.poll(1) == [(ours.fileno(), READABLE)]


def test_registered_for_nothing_it_can_be_unregistered(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = pair
    poller.register(ours.fileno(), 0)
    peer.send(b'x')
    assert poller.poll(0) == []
    poller.unregister(ours.fileno())


def test_a_hang_up_is_reported_with_what_is_watched(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = pair
    poller.register(ours.fileno(), READABLE)
    peer.close()
    [(fd, events)] = poller.poll(1)
    assert fd == ours.fileno()
    assert events & READABLE


def test_epoll_reports_a_hang_up_even_where_nothing_is_watched(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, peer = pair
    poller = POLLERS['epoll']()
    poller.register(ours.fileno(), 0)
    peer.close()
    [(fd, events)] = poller.poll(1)
    assert fd == ours.fileno()
    assert not events & (READABLE | WRITABLE)
    poller.close()


def test_what_was_unregistered_is_not_reported(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = pair
    poller.register(ours.fileno(), READABLE)
    poller.unregister(ours.fileno())
    peer.send(b'x')
    assert poller.poll(0) == []


@pytest.mark.parametrize('name', ['epoll', 'selector'])
def test_the_pollers_own_descriptor_is_readable_when_anything_is_ready(
    name: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = pair
    poller = POLLERS[name]()
    poller.register(ours.fileno(), READABLE)
    assert not select.select([poller.fileno()], [], [], 0)[0]
    peer.send(b'x')
    assert select.select([poller.fileno()], [], [], 1)[0]
    poller.close()


def test_linux_gets_epoll() -> None:
    poller = make_poller()
    assert isinstance(poller, EpollPoller)
    poller.close()


def test_without_epoll_the_best_selector_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, 'epoll')
    poller = make_poller()
    assert isinstance(poller, SelectorPoller)
    poller.close()


def test_under_monkey_patching_it_is_the_real_epoll_and_does_not_switch_greenlets() -> None:
    run_program("""
        from gevent import monkey
        monkey.patch_all()
        import gevent
        from ws4redis.loop.poller import EpollPoller, make_poller
        poller = make_poller()
        assert isinstance(poller, EpollPoller)
        others = []
        gevent.spawn(others.append, 1)
        poller.poll(0.05)
        assert others == [], 'the poll let another greenlet run'
    """)

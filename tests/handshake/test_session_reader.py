"""Handshakes that wait for their sessions together, and are admitted as soon as those are read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.test import override_settings

from tests.handshake.test_sessions import CACHE, stored
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.handshake import session_reader, sessions
from ws4redis.handshake.machine import Running, Steps, run_waiting
from ws4redis.handshake.session_reader import Admitted, ReadSession, SessionReader
from ws4redis.handshake.sessions import Read
from ws4redis.loop.blocking_call import Pool, TookTooLong
from ws4redis.loop.drivers import ThreadDriver
from ws4redis.loop.loop import Loop

# What runs in the pool looks after connections that earlier tests of the process have left.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(ThreadDriver(pool_size=2))
    loop.driver.start(loop)
    yield loop
    loop.stop()
    loop.driver.wait_stopped(SOON_SECONDS)


@pytest.fixture
def reader(loop: Loop) -> SessionReader:
    return SessionReader(loop)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test depend on how busy the machine is."""
    monkeypatch.setattr(session_reader, 'PATIENCE_SECONDS', SOON_SECONDS)
    monkeypatch.setattr(session_reader, 'AT_ONCE_SECONDS', SOON_SECONDS)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let each key be that of a session with its name; return what was read together."""
    batches: list[list[str]] = []

    def read_sessions(keys: list[str]) -> list[Read | None]:
        batches.append(keys)
        return [Read(key, {'name': key}) for key in keys]

    monkeypatch.setattr(session_reader, 'read_sessions', read_sessions)
    return batches


class Handshakes:
    """Handshakes that wait, and what became of them."""

    def __init__(self, loop: Loop, reader: SessionReader) -> None:
        self.undone: list[Any] = []
        self.results: dict[int, Any] = {}
        self._loop = loop
        self._reader = reader
        self._count = 0

    def step(
        self,
        key: str,
        admit: Callable[[Read], Any] | None = None,
        *,
        seconds: float = SOON_SECONDS,
    ) -> ReadSession:
        return ReadSession(
            self._reader, self._loop, key, seconds, admit=admit, too_late=self.undone.append
        )

    def begin(self, *steps: ReadSession) -> list[Running]:
        """Begin them in one turn of the loop; their results come under their numbers."""
        runs = [Running(_alone(step), self._ended(number)) for number, step in enumerate(steps)]

        def begin() -> None:
            for run in runs:
                run.start()

        self._count = len(steps)
        self._loop.call_soon(begin)
        return runs

    def _ended(self, number: int) -> Callable[[Any, BaseException | None], None]:
        def ended(result: Any, error: BaseException | None) -> None:
            assert number not in self.results
            self.results[number] = result if error is None else error

        return ended

    def wait(self) -> list[Any]:
        wait_until(lambda: len(self.results) == self._count)
        return [self.results[number] for number in range(self._count)]


def _alone(step: ReadSession) -> Steps[Any]:
    return (yield step)


@pytest.fixture
def handshakes(loop: Loop, reader: SessionReader) -> Handshakes:
    return Handshakes(loop, reader)


@override_settings(SESSION_ENGINE=CACHE)
def test_those_who_wait_get_their_sessions_in_few_round_trips_each_asked_for_once(
    handshakes: Handshakes, reader: SessionReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [stored(number=number) for number in range(150)]
    asked: list[list[str]] = []
    original = sessions._read_many

    def watched(wanted: Any) -> dict[str, Any]:
        asked.append(list(wanted))
        return original(wanted)

    monkeypatch.setattr(sessions, '_read_many', watched)
    handshakes.begin(*(handshakes.step(key) for key in keys * 2))
    results = handshakes.wait()
    assert [read.data['number'] for read in results] == [*range(150)] * 2
    # The first to come is asked for alone, and again for whoever came while that was under way.
    assert [len(batch) for batch in asked] == [1, 100, 50]
    assert reader.round_trips == 3


def test_a_store_that_raises_lets_everybody_read_by_himself(
    handshakes: Handshakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(wanted: Any) -> Any:
        raise ConnectionError('the cache is away')

    monkeypatch.setattr(session_reader, 'read_sessions', fail)
    handshakes.begin(handshakes.step('a', lambda read: 'admitted'), handshakes.step('b'))
    assert handshakes.wait() == [None, None]


def test_it_is_worth_it_only_when_many_wait_or_while_others_are_read_for(
    loop: Loop, reader: SessionReader, handshakes: Handshakes, batches: list[list[str]]
) -> None:
    assert not reader.is_worth_it
    may_go_on = threading.Event()
    pool = loop.driver.pool(Pool.POLICY)
    for _ in range(20):
        pool.submit(may_go_on.wait, SOON_SECONDS)
    assert reader.is_worth_it
    may_go_on.set()
    wait_until(lambda: not reader.is_worth_it)
    may_go_on.clear()
    handshakes.begin(handshakes.step('a', lambda read: may_go_on.wait(SOON_SECONDS)))
    wait_until(lambda: reader.is_worth_it)
    may_go_on.set()
    handshakes.wait()
    assert not reader.is_worth_it


@pytest.mark.usefixtures('batches')
def test_who_is_known_is_admitted_in_the_thread_that_reads(
    handshakes: Handshakes, loop: Loop
) -> None:
    def admit(read: Read) -> tuple[str, bool]:
        return read.key, loop.driver.in_loop()

    def fail(read: Read) -> None:
        raise PermissionError(read.key)

    handshakes.begin(handshakes.step('a', admit), handshakes.step('b', fail), handshakes.step('c'))
    admitted, refused, read = handshakes.wait()
    assert admitted == Admitted(('a', False))
    assert repr(refused) == "PermissionError('b')"
    assert read == Read('c', {'name': 'c'})
    assert handshakes.undone == []


@pytest.mark.parametrize('read', [Read('a', {SESSION_KEY: '1'}), None])
def test_who_has_to_be_asked_for_yet_is_not(
    handshakes: Handshakes, monkeypatch: pytest.MonkeyPatch, read: Read | None
) -> None:
    monkeypatch.setattr(session_reader, 'read_sessions', lambda keys: [read for _ in keys])
    handshakes.begin(handshakes.step('a', lambda read: 'admitted'))
    assert handshakes.wait() == [read]


@pytest.mark.usefixtures('batches')
def test_where_users_take_their_time_the_others_go_to_the_pool(
    handshakes: Handshakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_reader, 'AT_ONCE_SECONDS', 0)
    handshakes.begin(handshakes.step('a', lambda read: 'admitted'))
    assert handshakes.wait() == [Read('a', {'name': 'a'})]


def test_nobody_waits_for_one_who_is_stuck(
    handshakes: Handshakes, batches: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that all others are read for together.
    first_is_read = threading.Event()
    may_go_on = threading.Event()
    steps = [
        handshakes.step('first', lambda read: first_is_read.wait(SOON_SECONDS)),
        handshakes.step('before', lambda read: 'before'),
        handshakes.step('stuck', lambda read: may_go_on.wait(SOON_SECONDS)),
        handshakes.step('behind', lambda read: 'behind'),
    ]
    handshakes.begin(*steps)
    wait_until(lambda: batches == [['first']])
    monkeypatch.setattr(session_reader, 'PATIENCE_SECONDS', 0.05)
    first_is_read.set()
    wait_until(lambda: len(handshakes.results) == 3)
    # Who has been admitted is, and the other one reads for himself.
    assert handshakes.results[1] == Admitted('before')
    assert handshakes.results[3] is None
    monkeypatch.setattr(session_reader, 'PATIENCE_SECONDS', SOON_SECONDS)
    other = Handshakes(handshakes._loop, handshakes._reader)
    other.begin(other.step('next', lambda read: 'next'))
    assert other.wait() == [Admitted('next')]
    may_go_on.set()
    assert handshakes.wait()[2] == Admitted(True)
    assert handshakes.undone == []


@pytest.mark.usefixtures('batches')
def test_what_comes_too_late_is_undone(handshakes: Handshakes) -> None:
    may_go_on = threading.Event()

    def admit(read: Read) -> str:
        may_go_on.wait(SOON_SECONDS)
        return 'late'

    handshakes.begin(handshakes.step('a', admit, seconds=0.05))
    (error,) = handshakes.wait()
    assert isinstance(error, TookTooLong)
    assert handshakes.undone == []
    may_go_on.set()
    wait_until(lambda: handshakes.undone == ['late'])


def test_who_has_left_is_not_read_for(
    handshakes: Handshakes, loop: Loop, batches: list[list[str]]
) -> None:
    may_go_on = threading.Event()
    admitted: list[str] = []
    steps = [
        handshakes.step('first', lambda read: may_go_on.wait(SOON_SECONDS)),
        handshakes.step('left', lambda read: admitted.append('left')),
        handshakes.step('stays', lambda read: admitted.append('stays')),
    ]
    runs = handshakes.begin(*steps)
    wait_until(lambda: batches)
    loop.call_soon(runs[1].cancel)
    loop.call_soon(may_go_on.set)
    wait_until(lambda: len(handshakes.results) == 2)
    assert batches == [['first'], ['stays']]
    assert admitted == ['stays']


@pytest.mark.usefixtures('batches')
def test_a_thread_may_wait_for_the_same(handshakes: Handshakes) -> None:
    assert run_waiting(_alone(handshakes.step('a', lambda read: read.key))) == Admitted('a')
    assert run_waiting(_alone(handshakes.step('b'))) == Read('b', {'name': 'b'})

    def fail(read: Read) -> None:
        raise PermissionError(read.key)

    with pytest.raises(PermissionError):
        run_waiting(_alone(handshakes.step('c', fail)))


@pytest.mark.usefixtures('batches')
def test_a_thread_that_waits_no_longer_gets_nothing_and_what_was_made_is_undone(
    handshakes: Handshakes,
) -> None:
    may_go_on = threading.Event()

    def admit(read: Read) -> str:
        may_go_on.wait(SOON_SECONDS)
        return 'late'

    with pytest.raises(TookTooLong):
        run_waiting(_alone(handshakes.step('a', admit, seconds=0.05)))
    may_go_on.set()
    wait_until(lambda: handshakes.undone == ['late'])


class Interrupted:
    """An event whose wait is interrupted just when it has happened."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set

    def wait(self, timeout: float | None = None) -> bool:
        assert self._event.wait(SOON_SECONDS)
        raise InterruptedError


@pytest.mark.usefixtures('batches')
def test_so_is_what_was_made_for_a_thread_that_is_interrupted(
    handshakes: Handshakes, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.driver, 'event', Interrupted)
    with pytest.raises(InterruptedError):
        run_waiting(_alone(handshakes.step('a', lambda read: 'made')))
    wait_until(lambda: handshakes.undone == ['made'])

"""Who is alive is judged by answers of Redis."""

from __future__ import annotations

from typing import Any, cast

import hiredis
import pytest

from ws4redis.handlers.multiprocess.names import make_sign
from ws4redis.handlers.multiprocess.roster import SILENT_ROUNDS, RemoteWorker, Roster


class Commands:
    """Take commands in place of a connection; the test answers them."""

    is_connected = True

    def __init__(self) -> None:
        self.questions: list[Any] = []
        self.others: list[tuple[Any, ...]] = []

    def command(self, on_reply: Any, *words: Any) -> None:
        if words[0] == b'HGETALL':
            self.questions.append(on_reply)
        else:
            self.others.append(words)


class Rig:
    """A roster, and what it told."""

    def __init__(self) -> None:
        self.commands = Commands()
        self.new: list[str] = []
        self.dead: list[str] = []
        self.rounds = 0
        self.beats = 0
        self.signs: dict[str, bytes] = {}
        self.roster = Roster(
            cast('Any', self.commands),
            'workers',
            on_new=lambda worker: self.new.append(worker.id),
            on_dead=lambda worker: self.dead.append(worker.id),
            on_round=self._count,
        )

    def _count(self) -> None:
        self.rounds += 1

    def round(self, *beating: str, silent: tuple[str, ...] = (), load: int = 0) -> None:
        """Ask and answer: some workers give a new sign, others none."""
        for name in beating:
            self.beats += 1
            self.signs[name] = make_sign(load, self.beats).encode()
        self.roster.ask()
        answer = {name.encode(): self.signs[name] for name in (*beating, *silent)}
        self.commands.questions.pop()(answer)

    def chosen(self) -> str | None:
        worker = self.roster.choose()
        return None if worker is None else worker.id


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_worker_that_was_there_before_counts_at_its_second_sign(rig: Rig) -> None:
    rig.round('a')
    assert rig.new == ['a']
    assert rig.chosen() is None
    rig.round(silent=('a',))
    assert rig.chosen() is None
    rig.round('a')
    assert rig.chosen() == 'a'


def test_a_worker_that_comes_later_counts_at_once(rig: Rig) -> None:
    rig.round()
    rig.round('a')
    assert rig.chosen() == 'a'


def test_the_worker_with_least_to_do_is_chosen_and_one_that_stops_never(rig: Rig) -> None:
    rig.round()
    rig.round('busy', load=5)
    rig.round('idle', silent=('busy',), load=1)
    assert rig.chosen() == 'idle'
    rig.round('idle', silent=('busy',), load=-1)
    assert rig.chosen() == 'busy'


@pytest.mark.parametrize('silent', [('a',), ()], ids=['the same sign', 'no sign'])
def test_a_worker_is_dead_after_some_answers_without_a_new_sign(
    rig: Rig, silent: tuple[str, ...]
) -> None:
    rig.round()
    rig.round('a')
    for _ in range(SILENT_ROUNDS - 1):
        rig.round(silent=silent)
    assert not rig.dead
    rig.round(silent=silent)
    assert rig.dead == ['a']
    assert rig.roster.get('a') is None
    assert rig.commands.others == [(b'HDEL', 'workers', 'a')]


def test_one_sign_in_between_makes_up_for_the_silence(rig: Rig) -> None:
    rig.round()
    rig.round('a')
    for _ in range(3):
        for _ in range(SILENT_ROUNDS - 1):
            rig.round(silent=('a',))
        rig.round('a')
    assert not rig.dead


def test_while_redis_does_not_answer_nothing_is_asked_again(rig: Rig) -> None:
    rig.round()
    rig.round('a')
    for _ in range(10 * SILENT_ROUNDS):
        rig.roster.ask()
    assert len(rig.commands.questions) == 1
    rig.commands.questions.pop()({b'a': make_sign(0, 1).encode()})
    assert not rig.dead


def test_a_lost_connection_makes_up_for_the_silence(rig: Rig) -> None:
    rig.round()
    rig.round('a')
    for _ in range(3):
        for _ in range(SILENT_ROUNDS - 2):
            rig.round(silent=('a',))
        # Its answer will never come.
        rig.roster.ask()
        rig.roster.connected()
        rig.commands.questions.clear()
        rig.roster.connected()
        rig.commands.questions.pop()({})
    assert not rig.dead


def test_a_refusal_of_redis_is_logged_and_says_nothing_of_workers(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.round()
    rig.round('a')
    for _ in range(SILENT_ROUNDS):
        rig.roster.ask()
        rig.commands.questions.pop()(hiredis.ReplyError('NOPERM'))
    assert not rig.dead
    assert 'Redis does not tell which workers there are: NOPERM' in caplog.text


def test_a_dead_one_that_comes_back_is_new(rig: Rig) -> None:
    rig.round()
    rig.round('a')
    for _ in range(SILENT_ROUNDS):
        rig.round(silent=('a',))
    rig.round('a')
    assert rig.new == ['a', 'a']
    assert rig.chosen() == 'a'


def test_what_we_have_given_a_worker_counts_until_it_says_more() -> None:
    worker = RemoteWorker('a')
    worker.outboxes = cast('Any', {1: None, 2: None})
    assert worker.round(b'1 1', is_new=True)
    assert worker.load == 2
    assert worker.round(b'7 2', is_new=False)
    assert worker.load == 7

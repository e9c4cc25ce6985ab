"""The process that starts the others."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.timeouts import SOON_SECONDS, scaled
from ws4redis.standalone.options import ProcessOptions
from ws4redis.standalone.supervisor import CannotStart, Child, Post, Supervisor

SCRIPT = Path(__file__).with_name('scripted_child.py')
SERVER, HANDLERS = ProcessOptions(role='server'), ProcessOptions(role='handlers')


class ScriptedChild:
    """The test's end of a child."""

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(SOON_SECONDS)
        self._control = control
        self._lines = control.makefile()
        hello = json.loads(self.next_line())
        self.pid, self.role = hello['pid'], hello['role']

    def tell(self, command: str) -> None:
        self._control.sendall(f'{command}\n'.encode())

    def next_line(self) -> str:
        """Wait for what the child reports; an empty string tells that it has ended."""
        return self._lines.readline().strip()

    def close(self) -> None:
        self._lines.close()
        self._control.close()


class Stage:
    """Run a supervisor in this thread, which signals need, and a scenario in another."""

    def __init__(self, directory: Path) -> None:
        self.announcements = 0
        self.announced = threading.Event()
        self.ended = threading.Event()
        self._path = str(directory / 'control')
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen()
        self._listener.settimeout(SOON_SECONDS)
        self._children: list[ScriptedChild] = []

    def child(self) -> ScriptedChild:
        """Wait for the next child that is started."""
        child = ScriptedChild(self._listener.accept()[0])
        self._children.append(child)
        return child

    def children(self, number: int) -> dict[str, ScriptedChild]:
        """Wait for children, one of each role."""
        started = [self.child() for _ in range(number)]
        return {child.role: child for child in started}

    def play(
        self,
        programme: list[ProcessOptions],
        scenario: Callable[[], object],
        *,
        stop_seconds: float = SOON_SECONDS,
    ) -> None:
        """Run a supervisor until the scenario is over; raise what that raises."""
        failures: list[BaseException] = []

        def run_scenario() -> None:
            try:
                scenario()
            except BaseException as exc:
                failures.append(exc)
            finally:
                signal_supervisor(signal.SIGTERM)

        thread = threading.Thread(target=run_scenario)
        supervisor = Supervisor(
            programme,
            {'server': self._listener},
            stop_seconds=stop_seconds,
            announce=self._announce,
            command=(sys.executable, '-S', '-E', str(SCRIPT), self._path),
        )
        with ignored_signals():
            thread.start()
            try:
                supervisor.run()
            finally:
                self.ended.set()
                thread.join(SOON_SECONDS)
        if failures:
            raise failures[0]

    def _announce(self) -> None:
        self.announcements += 1
        self.announced.set()

    def serving_children(self, number: int) -> dict[str, ScriptedChild]:
        """Wait for the first children, and let them serve."""
        children = self.children(number)
        for child in children.values():
            child.tell('serve')
        assert self.announced.wait(SOON_SECONDS)
        return children

    def close(self) -> None:
        for child in self._children:
            child.close()
        self._listener.close()


class ignored_signals:  # noqa: N801 (a context manager)
    """Let a signal that comes when the supervisor has ended do nothing to the tests."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


def signal_supervisor(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def test_a_new_generation_replaces_the_old_one_when_all_of_it_serves(stage: Stage) -> None:
    def scenario() -> None:
        old = stage.serving_children(2)
        signal_supervisor(signal.SIGHUP)
        new = stage.children(2)
        new['handlers'].tell('serve')
        new['server'].tell('serve')
        for child in old.values():
            assert child.next_line() == 'SIGHUP'
        signal_supervisor(signal.SIGTERM)
        for child in new.values():
            assert child.next_line() == 'SIGTERM'

    stage.play([SERVER, HANDLERS], scenario)
    assert stage.announcements == 1


def test_an_old_process_that_dies_while_successors_start_costs_no_successor(stage: Stage) -> None:
    def scenario() -> None:
        old = stage.serving_children(2)
        signal_supervisor(signal.SIGHUP)
        new = stage.children(2)
        old['handlers'].tell('end 1')
        assert old['handlers'].next_line() == ''
        new['server'].tell('serve')
        new['handlers'].tell('serve')
        assert old['server'].next_line() == 'SIGHUP'
        # Nobody else is told to go before all are.
        signal_supervisor(signal.SIGTERM)
        for child in new.values():
            assert child.next_line() == 'SIGTERM'

    stage.play([SERVER, HANDLERS], scenario)


def test_the_old_ones_stay_until_a_successor_that_died_is_replaced(stage: Stage) -> None:
    def scenario() -> None:
        old = stage.serving_children(2)
        signal_supervisor(signal.SIGHUP)
        new = stage.children(2)
        new['server'].tell('serve')
        new['handlers'].tell('end 3')
        again = stage.child()
        assert again.role == 'handlers'
        old['server'].tell('ignore')
        # It was told nothing so far.
        assert old['server'].next_line() == 'ignoring'
        again.tell('serve')
        assert old['server'].next_line() == 'SIGHUP'
        assert old['handlers'].next_line() == 'SIGHUP'
        os.kill(old['server'].pid, signal.SIGKILL)

    stage.play([SERVER, HANDLERS], scenario)


def test_a_process_that_crashed_is_started_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario() -> None:
        first = stage.serving_children(2)
        for _ in range(2):
            first['handlers'].tell('end 7')
            first = {'handlers': stage.child()}
            assert first['handlers'].role == 'handlers'
            first['handlers'].tell('serve')

    stage.play([SERVER, HANDLERS], scenario)
    assert caplog.text.count('ended with status 7; another one starts') == 2


def test_a_process_that_does_not_end_is_killed(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario() -> None:
        child = stage.serving_children(1)['server']
        child.tell('ignore')
        assert child.next_line() == 'ignoring'
        signal_supervisor(signal.SIGTERM)
        assert child.next_line() == 'SIGTERM'
        assert child.next_line() == ''

    stage.play([SERVER], scenario, stop_seconds=0.3)
    assert 'did not stop in time: 1' in caplog.text


def test_a_second_signal_kills_at_once(stage: Stage) -> None:
    def scenario() -> None:
        child = stage.serving_children(1)['server']
        child.tell('ignore')
        assert child.next_line() == 'ignoring'
        signal_supervisor(signal.SIGTERM)
        assert child.next_line() == 'SIGTERM'
        signal_supervisor(signal.SIGTERM)
        assert child.next_line() == ''

    stage.play([SERVER], scenario, stop_seconds=scaled(600))


def test_a_process_that_cannot_be_started_for_now_is_tried_again_and_the_others_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = subprocess.Popen
    failures: list[None] = []

    def start_or_fail(*args: Any, **kwargs: Any) -> Any:
        if failures:
            failures.pop()
            raise OSError(11, 'Resource temporarily unavailable')
        return start(*args, **kwargs)

    monkeypatch.setattr(subprocess, 'Popen', start_or_fail)

    def scenario() -> None:
        old = stage.serving_children(1)['server']
        failures.extend([None, None])
        signal_supervisor(signal.SIGHUP)
        new = stage.child()
        new.tell('serve')
        assert old.next_line() == 'SIGHUP'

    stage.play([SERVER], scenario)
    assert caplog.text.count('cannot be started: [Errno 11]') == 2


def test_a_process_that_ends_before_it_serves_is_an_error_at_the_start(stage: Stage) -> None:
    def scenario() -> None:
        stage.child().tell('end 4')
        assert stage.ended.wait(SOON_SECONDS)

    with pytest.raises(CannotStart, match='status 4 before it served'):
        stage.play([SERVER], scenario)
    assert not stage.announced.is_set()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_supervisor_that_is_stopped_while_it_starts_does_not_say_that_it_serves(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[None] = []
    started: list[Child] = []

    def start_and_signal(supervisor: Supervisor, post: Post) -> Child:
        child = start(supervisor, post)
        started.append(child)
        os.kill(os.getpid(), number)
        return child

    start = Supervisor._start
    monkeypatch.setattr(Supervisor, '_start', start_and_signal)
    with socket.create_server(('127.0.0.1', 0)) as listener:
        supervisor = Supervisor(
            [ProcessOptions(role='server')],
            {'server': listener},
            stop_seconds=scaled(5),
            announce=lambda: announced.append(None),
        )
        supervisor.run()
    assert len(started) == 1
    assert started[0].process.returncode is not None
    assert not announced

"""What one process of the standalone server consists of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from tests.hub.rig import Home
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS
from ws4redis.handlers.backends import gevent_backend, threaded_backend
from ws4redis.handlers.multiprocess.backend import RemoteBackend
from ws4redis.handlers.multiprocess.worker import HandlerWorker
from ws4redis.standalone import serving
from ws4redis.standalone.options import GEVENT, MULTIPROCESS, THREADED, ProcessOptions

HANDLERS = {'default': 'tests.handlers.sample_handlers.Echo'}


def test_options_pass_through_a_command_line_unchanged() -> None:
    options = ProcessOptions(role='handlers', mode=GEVENT, certfile='a b"c', listener=7)
    script = (
        'import sys; from ws4redis.standalone.options import ProcessOptions as P;'
        'print(P.from_json(sys.argv[1]).to_json(), end="")'
    )
    told = subprocess.run(
        [sys.executable, '-c', script, options.to_json()],
        capture_output=True,
        text=True,
        check=True,
        timeout=SOON_SECONDS,
    )
    assert ProcessOptions.from_json(told.stdout) == options


@pytest.mark.parametrize(
    ('mode', 'maker'), [(THREADED, threaded_backend), (GEVENT, gevent_backend)]
)
def test_each_mode_of_one_process_has_its_backend(mode: str, maker: Any) -> None:
    assert serving.backend_maker(ProcessOptions(mode=mode)) is maker


def test_the_mode_multiprocess_reaches_handlers_by_the_names_of_the_options(
    redis_server: RedisServer,
) -> None:
    options = ProcessOptions(mode=MULTIPROCESS, push_socket='up', sub_socket='down')
    with Home() as hub, redis_server.client() as client:
        backend = serving.backend_maker(options)(hub)
        assert isinstance(backend, RemoteBackend)
        hub.turn_until(lambda: client.keys('down:*'))


@pytest.mark.parametrize(('role', 'called'), [('server', 'serve'), ('handlers', 'run_handlers')])
def test_the_role_decides_what_a_process_becomes(
    role: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ('serve', 'run_handlers'):
        monkeypatch.setattr(serving, name, lambda options, name=name: calls.append(name))
    serving.run_process(ProcessOptions(role=role))
    assert calls == [called]


class Handlers:
    """``run_handlers`` in this thread, which signals need; a step in another ends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lifeline, self.lifeline_writer = os.pipe()
        self.ready, self.ready_writer = os.pipe()
        self.stopped = threading.Event()
        stop = HandlerWorker.stop

        def stop_and_note(worker: HandlerWorker) -> None:
            stop(worker)
            self.stopped.set()

        monkeypatch.setattr(HandlerWorker, 'stop', stop_and_note)

    def run(self, step: Any) -> None:
        options = ProcessOptions(role='handlers', lifeline=self.lifeline, ready=self.ready_writer)

        def wait_and_step() -> None:
            assert os.read(self.ready, 1) == b'\0'
            step()

        thread = threading.Thread(target=wait_and_step)
        thread.start()
        with override_settings(DEFAULT_WS_HANDLERS=HANDLERS):
            serving.run_handlers(options)
        thread.join(SOON_SECONDS)

    def close(self) -> None:
        for fd in (self.lifeline_writer, self.lifeline, self.ready):
            try:
                os.close(fd)
            except OSError:
                # A step has closed it.
                pass


@pytest.fixture
def handlers(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Handlers]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    handlers = Handlers(monkeypatch)
    yield handlers
    for number, handler in before.items():
        signal.signal(number, handler)
    handlers.close()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_handlers_in_good_order(handlers: Handlers, number: int) -> None:
    handlers.run(lambda: os.kill(os.getpid(), number))
    assert handlers.stopped.is_set()


def test_the_end_of_the_supervisor_stops_handlers(
    handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    handlers.run(lambda: os.close(handlers.lifeline_writer))
    assert handlers.stopped.is_set()
    assert 'the supervisor has gone' in caplog.text


def test_ctrl_c_does_not_stop_handlers_that_have_a_supervisor(handlers: Handlers) -> None:
    def interrupt_then_stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert not handlers.stopped.wait(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    handlers.run(interrupt_then_stop)
    assert handlers.stopped.is_set()

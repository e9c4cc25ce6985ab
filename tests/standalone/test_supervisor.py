"""The process that starts the others."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from ws4redis.standalone.options import ProcessOptions
from ws4redis.standalone.supervisor import Child, Supervisor


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_supervisor_that_is_stopped_while_it_starts_does_not_say_that_it_serves(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[None] = []
    started: list[Child] = []

    def start_and_signal(supervisor: Supervisor, options: ProcessOptions) -> Child:
        child = start(supervisor, options)
        started.append(child)
        os.kill(os.getpid(), number)
        return child

    start = Supervisor._start
    monkeypatch.setattr(Supervisor, '_start', start_and_signal)
    with socket.create_server(('127.0.0.1', 0)) as listener:
        supervisor = Supervisor(
            [ProcessOptions(role='server')],
            listener,
            stop_seconds=5,
            announce=lambda: announced.append(None),
        )
        supervisor.run()
    assert len(started) == 1
    assert started[0].process.returncode is not None
    assert not announced

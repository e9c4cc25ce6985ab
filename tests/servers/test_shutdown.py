"""The end of a process: which farewell websockets get, and who is told in which order."""

from __future__ import annotations

import atexit
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings
from django.utils import autoreload

from tests.hub.rig import Home, run_program
from ws4redis.servers import shutdown
from ws4redis.servers.shutdown import (
    MERCY_SECONDS,
    RESTARTS,
    STOPS,
    close_hub_at_exit,
    farewell_of_uwsgi,
    mercy_seconds,
)


def uwsgi(*, master: int = 1) -> Any:
    return SimpleNamespace(masterpid=lambda: master, opt={})


@pytest.mark.parametrize(
    ('master', 'signals', 'farewell'),
    [
        (1, {signal.SIGINT}, STOPS),
        (1, {signal.SIGTERM}, RESTARTS),
        (1, {signal.SIGHUP}, RESTARTS),
        (1, {signal.SIGHUP, signal.SIGINT}, STOPS),
        (1, set(), RESTARTS),
        (0, {signal.SIGTERM}, STOPS),
        (0, {signal.SIGINT}, STOPS),
        (0, {signal.SIGHUP}, RESTARTS),
    ],
)
def test_the_signal_tells_a_stop_from_a_reload(
    master: int, signals: set[int], farewell: Any
) -> None:
    assert farewell_of_uwsgi(uwsgi(master=master), signals) == farewell


@pytest.mark.parametrize(
    ('options', 'seconds'),
    [
        ({}, MERCY_SECONDS),
        ({'worker-reload-mercy': b'7'}, 7.0),
        ({'reload-mercy': '9', 'worker-reload-mercy': '5'}, 5.0),
        ({'reload-mercy': b'9'}, 9.0),
        ({'worker-reload-mercy': True}, 1.0),
        ({'worker-reload-mercy': b'soon'}, MERCY_SECONDS),
        ({'worker-reload-mercy': [b'1', b'2']}, MERCY_SECONDS),
    ],
)
def test_the_mercy_of_uwsgi_is_read_however_it_is_given(
    options: dict[str, Any], seconds: float
) -> None:
    assert mercy_seconds(options) == seconds


def drained(hub: Home, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Note how websockets are closed, and let the loop end at once."""
    calls: list[tuple[Any, ...]] = []

    def drain(
        code: int, reason: str, *, spread_seconds: float, close_timeout_seconds: float
    ) -> None:
        calls.append((code, reason, spread_seconds, close_timeout_seconds))
        hub.loop.running = False

    def finish(timeout_seconds: float) -> bool:
        hub.turn(2)
        return not hub.loop.running

    monkeypatch.setattr(hub, 'drain', drain)
    monkeypatch.setattr(hub.loop.driver, 'finish', finish)
    return calls


def test_uwsgi_calls_what_was_there_before_as_well_and_times_fit_into_its_mercy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier: list[str] = []
    module = uwsgi()
    module.opt = {'worker-reload-mercy': b'6'}
    module.atexit = lambda: earlier.append('earlier')
    monkeypatch.setitem(sys.modules, 'uwsgi', module)
    with Home() as hub, override_settings(WS4REDIS_DRAIN_SECONDS=30, WS4REDIS_CLOSE_TIMEOUT=1):
        calls = drained(hub, monkeypatch)
        close_hub_at_exit(hub)
        assert not calls
        module.atexit()
        assert calls == [(*RESTARTS, 2.0, 1)]
        assert earlier == ['earlier']
        # A loop that has ended is not closed again.
        module.atexit()
        assert len(calls) == 1


def test_uwsgi_is_told_of_websockets_that_did_not_close_in_time_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = uwsgi()
    monkeypatch.setitem(sys.modules, 'uwsgi', module)
    with Home() as hub:
        drained(hub, monkeypatch)
        monkeypatch.setattr(hub.loop.driver, 'finish', lambda timeout_seconds: False)
        close_hub_at_exit(hub)
        module.atexit()
    assert 'websockets were not closed in time' in caplog.text


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is to be called when Python ends."""
    registered: list[Any] = []
    monkeypatch.delitem(sys.modules, 'uwsgi', raising=False)
    monkeypatch.setattr(atexit, 'register', registered.append)
    monkeypatch.setattr(atexit, 'unregister', registered.remove)
    return registered


@pytest.mark.parametrize('reloads', [False, True])
def test_runserver_tells_a_change_of_code_from_its_end(
    at_exit: list[Any], monkeypatch: pytest.MonkeyPatch, reloads: bool
) -> None:
    monkeypatch.setattr(shutdown, '_changed_files', [])
    with Home() as hub, override_settings(WS4REDIS_CLOSE_TIMEOUT=30):
        calls = drained(hub, monkeypatch)
        close_hub_at_exit(hub)
        if reloads:
            autoreload.file_changed.send(sender=None, file_path=Path('models.py'))
        (end,) = at_exit
        end()
    farewell = RESTARTS if reloads else STOPS
    # Nobody waits for long at a developer's keyboard.
    assert calls == [(*farewell, 0, shutdown.DEVELOPMENT_CLOSE_SECONDS)]


def test_websockets_that_have_gone_earlier_are_not_kept_until_the_end(at_exit: list[Any]) -> None:
    with Home() as hub:
        close_hub_at_exit(hub)
        assert len(at_exit) == 1
    assert at_exit == []


def test_a_signal_of_uwsgi_begins_to_close_at_once_under_gevent() -> None:
    program = """
    from gevent import monkey
    monkey.patch_all()
    import os, signal, sys
    from types import ModuleType
    import django, gevent
    uwsgi = ModuleType('uwsgi')
    uwsgi.opt = {'gevent': b'10'}
    uwsgi.masterpid = lambda: 1
    sys.modules['uwsgi'] = uwsgi
    django.setup()
    from tests.timeouts import SOON_SECONDS
    from ws4redis.servers import shutdown
    shutdown.runs_under_gevent = lambda: True
    from gevent.event import Event
    begun, farewells = Event(), []
    def begin(websockets, farewell, spread, timeout):
        farewells.append(farewell)
        begun.set()
    shutdown._begin = begin
    shutdown.close_hub_at_exit(object())
    os.kill(os.getpid(), signal.SIGINT)
    assert begun.wait(SOON_SECONDS)
    print(*farewells[0])
    """
    assert run_program(program).split() == ['1001', 'the', 'server', 'stops']

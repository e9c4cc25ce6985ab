"""A process that runs handlers; the test is Redis' other end: a websocket server."""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.test import RequestFactory, override_settings

from tests.programs import RedisServer
from tests.redis_keys import stored_keys
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.exceptions import HandshakeError
from ws4redis.handlers.multiprocess import worker as module
from ws4redis.handlers.multiprocess.acceptance import Acceptance
from ws4redis.handlers.multiprocess.events import Event, Kind, parse
from ws4redis.handlers.multiprocess.names import KeyNames, parse_sign
from ws4redis.handlers.multiprocess.sealing import seal
from ws4redis.handlers.multiprocess.worker import HandlerWorker
from ws4redis.handlers.requests import lasting_environ
from ws4redis.handlers.routes import routes_from_settings

NAMES = KeyNames()
SAMPLES = 'tests.handlers.sample_handlers'
HANDLERS = {
    'default': f'{SAMPLES}.Echo',
    'guarded': f'{SAMPLES}.Guarded',
    'log': f'{SAMPLES}.Log',
    'faulty': f'{SAMPLES}.Faulty',
}


class Server:
    """A websocket server as Redis shows it."""

    def __init__(self, client: redis.Redis, worker: HandlerWorker, name: str = 'server') -> None:
        self.client = client
        self.worker = worker
        self.name = name
        self.client.xadd(NAMES.answers(name), {b'hello': Event(b'hello', name, 0, 0).content()})

    def send(self, kind: Kind, websocket: int, number: int, payload: bytes = b'') -> None:
        event = Event(kind, self.name, websocket, number, payload)
        self.client.xadd(NAMES.events(self.worker.id), {kind.value: event.content()})

    def open(self, websocket: int, handler: str = f'{SAMPLES}.Echo', query: str = '') -> None:
        environ = RequestFactory().get(f'/socket?{query}').environ
        request = {'handler': handler, 'kwargs': {}, 'environ': lasting_environ(environ)}
        self.send(Kind.OPEN, websocket, 1, seal(json.dumps(request).encode()))

    def answers(self, *kinds: Kind) -> list[Event]:
        """Return the answers that have come, of some kinds or all."""
        entries: Any = self.client.execute_command('XRANGE', NAMES.answers(self.name), '-', '+')
        events: list[Event] = []
        for _, words in entries:
            events += [parse(k, c) for k, c in zip(words[::2], words[1::2], strict=True)]
        return [e for e in events if e.kind in kinds or (not kinds and e.kind != b'hello')]

    def wait_for(self, kind: Kind, number: int = 1) -> list[Event]:
        wait_until(lambda: len(self.answers(kind)) >= number, message=f'no {kind!r}')
        return self.answers(kind)


class Running:
    """A worker in a thread."""

    def __init__(self, worker: HandlerWorker) -> None:
        self.worker = worker
        self.announced = threading.Event()
        self.thread = threading.Thread(target=worker.run, kwargs={'announce': self.announced.set})
        self.thread.start()

    def stop(self) -> None:
        self.worker.stop()
        self.thread.join(SOON_SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def worker(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandlerWorker]:
    # Its end is not noticed before it has read.
    monkeypatch.setattr(module, 'READ_BLOCK_MS', 50)
    with override_settings(DEFAULT_WS_HANDLERS=HANDLERS, WS4REDIS_CLOSE_TIMEOUT=1):
        worker = HandlerWorker(NAMES, routes_from_settings())
        running = Running(worker)
        assert running.announced.wait(SOON_SECONDS)
        yield worker
        running.stop()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        client.set_response_callback('XRANGE', lambda reply, **options: reply)
        yield client


@pytest.fixture
def server(client: redis.Redis, worker: HandlerWorker) -> Iterator[Server]:
    server = Server(client, worker)
    yield server
    # Websockets that are open when the worker stops would be waited for.
    client.delete(NAMES.answers(server.name))
    for lane in list(worker._open_lanes.values()):
        lane.server_gone()


def test_it_says_that_it_lives_how_much_it_has_to_do_and_leaves_nothing_behind(
    client: redis.Redis, redis_server: RedisServer
) -> None:
    with override_settings(DEFAULT_WS_HANDLERS=HANDLERS):
        worker = HandlerWorker(NAMES, routes_from_settings())
    running = Running(worker)
    assert running.announced.wait(SOON_SECONDS)
    signs: set[bytes] = set()

    def have_changed() -> bool:
        signs.add(client.hget(NAMES.workers, worker.id) or b'')  # type: ignore[arg-type]
        return len(signs - {b''}) == 2

    wait_until(have_changed)
    assert {parse_sign(sign) for sign in signs - {b''}} == {0}
    running.stop()
    assert stored_keys(client) == []


def test_a_handshake_is_accepted_and_messages_come_back_in_order(server: Server) -> None:
    server.open(1)
    (accept,) = server.wait_for(Kind.ACCEPT)
    assert (accept.websocket, accept.number) == (1, 1)
    assert Acceptance.unsealed(accept.payload) == Acceptance()
    server.send(Kind.TEXT, 1, 2, b'hello')
    server.send(Kind.BINARY, 1, 3, b'\xff')
    server.wait_for(Kind.SEND_BINARY)
    sent = server.answers(Kind.SEND_TEXT, Kind.SEND_BINARY)
    assert [(e.number, e.payload) for e in sent] == [(2, b'hello'), (3, b'\xff')]
    wait_until(lambda: server.answers(Kind.SEEN)[-1].number == 3)
    wait_until(lambda: not server.client.xlen(NAMES.events(server.worker.id)))


def test_a_refusal_carries_status_and_sentence(server: Server) -> None:
    server.open(1, f'{SAMPLES}.Guarded')
    (refusal,) = server.wait_for(Kind.REFUSE)
    assert refusal.payload == b'403 Permission denied.'


@pytest.mark.parametrize('handler', ['os.path.join', f'{SAMPLES}.Slow', 'nothing'])
def test_a_handler_that_is_not_in_the_settings_is_refused(
    server: Server, handler: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.open(1, handler)
    (refusal,) = server.wait_for(Kind.REFUSE)
    assert refusal.payload.startswith(b'500')
    assert f'the handler {handler} is not in the settings' in caplog.text


def test_a_handshake_that_another_secret_key_sealed_is_refused(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.send(Kind.OPEN, 1, 1, b'x' * 200)
    (refusal,) = server.wait_for(Kind.REFUSE)
    assert refusal.payload.startswith(b'500')
    assert 'cannot read the handshake of server: it was sealed with another' in caplog.text


def test_an_event_that_comes_twice_is_seen_once(server: Server) -> None:
    server.open(1)
    for number in (2, 2, 3, 2):
        server.send(Kind.TEXT, 1, number, b'%d' % number)
    wait_until(lambda: len(server.answers(Kind.SEND_TEXT)) == 2)
    wait_until(lambda: server.answers(Kind.SEEN)[-1].number == 3)
    assert [e.payload for e in server.answers(Kind.SEND_TEXT)] == [b'2', b'3']


def test_what_comes_after_the_end_was_seen_before(server: Server) -> None:
    server.open(1)
    server.send(Kind.END, 1, 2, b'1000 ')
    wait_until(lambda: server.answers(Kind.SEEN)[-1:] and not server.worker._open_lanes)
    before = len(server.answers(Kind.SEEN))
    server.send(Kind.END, 1, 2, b'1000 ')
    again = server.wait_for(Kind.SEEN, before + 1)
    assert again[-1].number == 2


def test_an_event_of_a_websocket_that_was_never_known_is_answered_by_a_report(
    server: Server,
) -> None:
    server.open(1)
    server.wait_for(Kind.ACCEPT)
    server.send(Kind.TEXT, 5, 3, b'x')
    (state,) = server.wait_for(Kind.STATE)
    assert state.payload == b'1:1'
    server.send(Kind.REPORT, 0, 0)
    assert server.wait_for(Kind.STATE, 2)[-1].payload == b'1:1'


def test_what_is_no_event_is_logged_and_harms_nobody(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.client.xadd(NAMES.events(server.worker.id), {b'text': b'rubbish'})
    server.open(1)
    server.wait_for(Kind.ACCEPT)
    assert 'that is no event' in caplog.text
    wait_until(lambda: not server.client.xlen(NAMES.events(server.worker.id)))


def test_a_handler_learns_of_a_server_whose_stream_is_missing_for_some_rounds(
    server: Server,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, 'ALIVE_INTERVAL_SECONDS', 0.05)
    server.open(1, f'{SAMPLES}.Log')
    server.wait_for(Kind.ACCEPT)
    server.client.delete(NAMES.answers('server'))
    wait_until(lambda: not server.worker._open_lanes)
    assert 'the websocket server server has gone' in caplog.text
    assert 'on_close 1006' in capfd.readouterr().err


def test_a_stream_that_was_lost_is_made_again(server: Server) -> None:
    server.client.delete(NAMES.events(server.worker.id))
    wait_until(lambda: server.client.exists(NAMES.events(server.worker.id)))
    server.open(1)
    server.wait_for(Kind.ACCEPT)


def test_a_worker_that_stops_closes_with_1012_and_waits_for_the_ends(
    client: redis.Redis, redis_server: RedisServer
) -> None:
    with override_settings(DEFAULT_WS_HANDLERS=HANDLERS):
        worker = HandlerWorker(NAMES, routes_from_settings())
    running = Running(worker)
    assert running.announced.wait(SOON_SECONDS)
    server = Server(client, worker)
    server.open(1)
    server.wait_for(Kind.ACCEPT)
    worker.stop()
    (close,) = server.wait_for(Kind.CLOSE)
    assert close.payload.startswith(b'1012')
    wait_until(lambda: parse_sign(client.hget(NAMES.workers, worker.id)) == -1)  # type: ignore[arg-type]
    server.send(Kind.END, 1, 2, b'1012 ')
    running.stop()
    assert server.answers(Kind.SEEN)[-1].number == 2


def test_it_starts_and_stops_while_redis_is_away(redis_server: RedisServer) -> None:
    redis_server.kill()
    with override_settings(DEFAULT_WS_HANDLERS=HANDLERS):
        worker = HandlerWorker(NAMES, routes_from_settings())
    running = Running(worker)
    assert running.announced.wait(SOON_SECONDS)
    running.stop()
    redis_server.start()


def test_to_stop_it_takes_no_lock_since_a_signal_may_interrupt_who_holds_it(
    redis_server: RedisServer,
) -> None:
    worker = HandlerWorker(NAMES, routes_from_settings())
    called: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == 'call':
            called.append(frame.f_code.co_name)

    # What the garbage collector calls meanwhile would be noted, too.
    gc.disable()
    sys.setprofile(note)
    try:
        worker.stop()
    finally:
        sys.setprofile(None)
        gc.enable()
    assert called == ['stop']
    worker.lanes.runner.stop()


def test_the_class_of_an_unknown_handler_is_an_error(redis_server: RedisServer) -> None:
    worker = HandlerWorker(NAMES, routes_from_settings())
    with pytest.raises(HandshakeError) as error:
        worker.handler_class('no.such.Handler')
    assert error.value.status == 500
    worker.lanes.runner.stop()

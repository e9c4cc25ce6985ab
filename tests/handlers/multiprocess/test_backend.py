"""A server whose handlers run elsewhere; the test is Redis' other end: a worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis
from django.test import RequestFactory

from tests.handlers.sample_handlers import Echo
from tests.hub.rig import Clock, Home, Peer
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import CLOSE, Frame
from ws4redis.exceptions import HandshakeError
from ws4redis.handlers.multiprocess.acceptance import Acceptance
from ws4redis.handlers.multiprocess.backend import RemoteBackend
from ws4redis.handlers.multiprocess.events import Event, Kind, pack_code, parse
from ws4redis.handlers.multiprocess.names import ALIVE_INTERVAL_SECONDS, KeyNames, make_sign
from ws4redis.handlers.multiprocess.roster import SILENT_ROUNDS
from ws4redis.handlers.multiprocess.sealing import unseal
from ws4redis.handlers.routes import Match
from ws4redis.handshake.machine import run_waiting
from ws4redis.hub.identity import Identity
from ws4redis.hub.options import HubOptions
from ws4redis.protocol.frames import Opcode

NAMES = KeyNames()


class Worker:
    """A worker as Redis shows it."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.client = client
        self.name = name
        self.number_of_beats = 0
        self.answers = 0
        self.make_stream()
        self.beat()

    def make_stream(self) -> None:
        self.client.xadd(NAMES.events(self.name), {b'first': b'entry'})

    def lose_stream(self) -> None:
        self.client.delete(NAMES.events(self.name))

    def beat(self) -> None:
        self.number_of_beats += 1
        self.client.hset(NAMES.workers, self.name, make_sign(0, self.number_of_beats))

    def events(self) -> list[Event]:
        """Return all events that it was ever sent, but for demands of a report."""
        entries: Any = self.client.execute_command('XRANGE', NAMES.events(self.name), '-', '+')
        events: list[Event] = []
        for _, words in entries:
            pairs = zip(words[::2], words[1::2], strict=True)
            events += [parse(kind, content) for kind, content in pairs if kind != b'first']
        return [event for event in events if event.kind != b'report']

    def kinds(self) -> list[bytes]:
        return [event.kind for event in self.events()]

    def answer(
        self, server: str, kind: Kind, websocket: int, payload: bytes = b'', *, number: int = -1
    ) -> None:
        if number < 0:
            self.answers += 1
            number = self.answers
        event = Event(kind, self.name, websocket, number, payload)
        self.client.xadd(NAMES.answers(server), {kind.value: event.content()})


class Opening:
    """A handshake; its websocket is a peer's."""

    def __init__(self, hub: Home) -> None:
        self.hub = hub
        self.users: list[str] = []
        self.peer: Peer | None = None
        self.is_complete = False
        self.error: HandshakeError | None = None
        self.seconds_left = SOON_SECONDS

    def make_websocket(self, receiver: Any) -> Any:
        self.peer = self.hub.peer(receiver=receiver, attached=False)
        return self.peer.websocket

    def identify(self, identity: Identity) -> None:
        assert self.peer is not None
        self.peer.websocket.identity = identity

    def count_user(self, user: str) -> None:
        self.users.append(user)

    def complete(self) -> None:
        assert self.peer is not None
        self.hub.loop.call_soon(self.peer.attach)
        self.is_complete = True


class Rig:
    """A backend in a loop that the test turns."""

    def __init__(self, hub: Home, clock: Clock, client: redis.Redis) -> None:
        self.hub = hub
        self.clock = clock
        self.client = client
        self.backend = RemoteBackend(hub, NAMES)
        hub.turn_until(lambda: client.exists(NAMES.answers(self.backend.id)))

    def tick(self) -> None:
        """Let a round of signs of life pass."""
        calls = self._questions()
        self.clock.advance(ALIVE_INTERVAL_SECONDS)
        self.hub.turn_until(lambda: self._questions() > calls)
        self.hub.turn_until(lambda: not self.backend._roster._is_asking)
        self.hub.turn(2)

    def _questions(self) -> int:
        statistics: Any = self.client.info('commandstats')
        return int(statistics.get('cmdstat_hgetall', {}).get('calls', 0))

    def worker(self, name: str = 'worker') -> Worker:
        """Return a worker that the server knows."""
        worker = Worker(self.client, name)
        self.tick()
        return worker

    def begin(self, **headers: str) -> tuple[Opening, threading.Thread]:
        """Begin a handshake."""
        opening = Opening(self.hub)
        environ = RequestFactory().get('/socket', **headers).environ  # type: ignore[arg-type]

        def open_() -> None:
            try:
                run_waiting(
                    self.backend.open(
                        cast('Any', opening), environ, Match(Echo, {'namespace': 'x'})
                    )
                )
            except HandshakeError as error:
                opening.error = error

        thread = threading.Thread(target=open_)
        thread.start()
        self.hub.turn_until(lambda: opening.peer is not None)
        return opening, thread

    def finish(self, opening: Opening, thread: threading.Thread) -> None:
        self.hub.turn_until(lambda: not thread.is_alive())
        thread.join(SOON_SECONDS)
        self.hub.turn(2)

    def open(
        self, worker: Worker, *, number: int = 1, user: str | None = None
    ) -> tuple[Opening, Peer]:
        """Open a websocket that a worker takes."""
        handshake = self.begin()
        self.hub.turn_until(lambda: worker.kinds().count(b'open') == number)
        worker.answer(self.backend.id, Kind.ACCEPT, number, Acceptance(user).sealed())
        self.finish(*handshake)
        opening = handshake[0]
        assert opening.is_complete
        assert opening.peer is not None
        return opening, opening.peer

    def messages(self, peer: Peer, number: int) -> list[str | bytes]:
        """Turn until so many messages have arrived."""
        messages: list[str | bytes] = []

        def have_arrived() -> bool:
            messages.extend(peer.messages())
            return len(messages) >= number

        self.hub.turn_until(have_arrived)
        return messages

    def close_code(self, peer: Peer) -> int:
        """Turn until the websocket is being closed, and return with which code."""
        codes: list[int] = []

        def is_closing() -> list[int]:
            frames = peer.frames()
            codes.extend(int.from_bytes(f.payload[:2], 'big') for f in frames if f.opcode == CLOSE)
            return codes

        self.hub.turn_until(is_closing)
        return codes[0]


@pytest.fixture
def rig(redis_server: RedisServer) -> Iterator[Rig]:
    clock = Clock()
    with redis_server.client() as client, Home(clock=clock, options=HubOptions()) as hub:
        client.set_response_callback('XRANGE', lambda reply, **options: reply)
        yield Rig(hub, clock, client)


def test_a_worker_gets_the_handshake_unreadable_for_others_and_accepts_it(rig: Rig) -> None:
    worker = rig.worker()
    handshake = rig.begin(HTTP_COOKIE='sessionid=secret', HTTP_AUTHORIZATION='Bearer secret')
    rig.hub.turn_until(worker.events)
    (event,) = worker.events()
    assert event.kind == b'open'
    assert b'secret' not in event.payload
    request = json.loads(unseal(event.payload))
    assert request['handler'] == 'tests.handlers.sample_handlers.Echo'
    assert request['kwargs'] == {'namespace': 'x'}
    assert request['environ']['HTTP_COOKIE'] == 'sessionid=secret'
    worker.answer(rig.backend.id, Kind.ACCEPT, 1, Acceptance('john').sealed())
    rig.finish(*handshake)
    assert handshake[0].users == ['john']
    assert handshake[0].is_complete


def test_a_refusal_is_the_answer_of_the_handshake(rig: Rig) -> None:
    worker = rig.worker()
    handshake = rig.begin()
    rig.hub.turn_until(worker.events)
    worker.answer(rig.backend.id, Kind.REFUSE, 1, pack_code(403, 'Permission denied.'))
    rig.finish(*handshake)
    error = handshake[0].error
    assert error is not None
    assert (error.status, error.body) == (403, 'Permission denied.')


def test_a_foreign_origin_is_refused_without_asking_a_worker(rig: Rig) -> None:
    worker = rig.worker()
    opening = Opening(rig.hub)
    environ = RequestFactory().get('/socket', HTTP_ORIGIN='https://evil.example').environ
    with pytest.raises(HandshakeError) as refused:
        run_waiting(rig.backend.open(cast('Any', opening), environ, Match(Echo, {})))
    assert refused.value.status == 403
    assert not worker.events()


def test_a_handshake_waits_for_a_worker(rig: Rig) -> None:
    handshake = rig.begin()
    rig.hub.turn(3)
    worker = rig.worker()
    rig.hub.turn_until(worker.events)
    worker.answer(rig.backend.id, Kind.ACCEPT, 1, Acceptance().sealed())
    rig.finish(*handshake)
    assert handshake[0].is_complete


def test_messages_pass_in_both_directions_and_what_was_seen_is_forgotten(rig: Rig) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    peer.send('hello')
    peer.send(b'\xff')
    rig.hub.turn_until(lambda: worker.kinds() == [b'open', b'text', b'binary'])
    assert [event.number for event in worker.events()] == [1, 2, 3]
    worker.answer(rig.backend.id, Kind.SEND_TEXT, 1, b'one')
    worker.answer(rig.backend.id, Kind.SEND_BINARY, 1, b'\xfe')
    assert rig.messages(peer, 2) == ['one', b'\xfe']
    assert rig.hub.statistics.handler_events_waiting == 3
    worker.answer(rig.backend.id, Kind.SEEN, 1, number=3)
    rig.hub.turn_until(lambda: not rig.hub.statistics.handler_events_waiting)


def test_a_close_of_the_handler_closes_and_the_end_is_told(rig: Rig) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    worker.answer(rig.backend.id, Kind.CLOSE, 1, pack_code(4001, 'bye'))
    assert rig.close_code(peer) == 4001
    peer.send_close(4001)
    peer.socket.close()
    rig.hub.turn_until(lambda: worker.kinds()[-1] == b'end')
    assert worker.events()[-1].payload.startswith(b'4001')
    worker.answer(rig.backend.id, Kind.SEEN, 1, number=2)
    rig.hub.turn_until(lambda: not rig.backend._outboxes)


def frames_but_pings(peer: Peer) -> list[Frame]:
    # The clock that passes makes pings due as well.
    return [frame for frame in peer.frames() if frame.opcode != Opcode.PING]


def test_a_worker_that_is_silent_for_some_rounds_loses_its_websockets(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    peer.send('never seen')
    for _ in range(SILENT_ROUNDS - 1):
        rig.tick()
    assert not frames_but_pings(peer)
    rig.tick()
    assert rig.close_code(peer) == 1012
    assert 'the worker worker has died: 1 websockets are closed, 2 events were not' in caplog.text
    assert 'not seen: event 2 of websocket 1: text, 10 bytes' in caplog.text


def test_a_halted_redis_makes_nobody_dead(rig: Rig, redis_server: RedisServer) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    redis_server.pause()
    try:
        for _ in range(3 * SILENT_ROUNDS):
            rig.clock.advance(ALIVE_INTERVAL_SECONDS)
            rig.hub.turn(2)
    finally:
        redis_server.resume()
    worker.beat()
    rig.tick()
    assert not frames_but_pings(peer)
    assert rig.backend._roster.get('worker') is not None


def test_events_that_a_missing_stream_did_not_take_are_sent_again(rig: Rig) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    worker.lose_stream()
    peer.send('one')
    rig.hub.turn_until(lambda: any(w.needs_resend for w in rig.backend._roster))
    peer.send('two')
    worker.make_stream()
    worker.beat()
    rig.tick()
    rig.hub.turn_until(lambda: worker.kinds() == [b'open', b'text', b'text'])
    assert [event.payload for event in worker.events()[1:]] == [b'one', b'two']


def test_an_answer_that_is_missing_closes_with_1011(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    worker.answer(rig.backend.id, Kind.SEND_TEXT, 1, b'x', number=3)
    assert rig.close_code(peer) == 1011
    assert 'answers to websocket 1 were lost' in caplog.text


def test_an_answer_that_comes_twice_is_taken_once(rig: Rig) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    for payload, number in ((b'a', 2), (b'a', 2), (b'b', 3)):
        worker.answer(rig.backend.id, Kind.SEND_TEXT, 1, payload, number=number)
    assert rig.messages(peer, 2) == ['a', 'b']


def test_a_report_ends_strays_there_and_what_was_forgotten_here(rig: Rig) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    worker.answer(rig.backend.id, Kind.SEEN, 1, number=1)
    rig.hub.turn_until(lambda: not rig.hub.statistics.handler_events_waiting)
    worker.answer(rig.backend.id, Kind.STATE, 0, b'1:1 7:2', number=0)
    rig.hub.turn_until(lambda: worker.kinds()[-1] == b'end')
    assert worker.events()[-1][2:4] == (7, 0)
    assert not frames_but_pings(peer)
    worker.answer(rig.backend.id, Kind.STATE, 0, b'', number=0)
    assert rig.close_code(peer) == 1012


def test_an_answer_for_a_websocket_that_has_gone_ends_its_handler(rig: Rig) -> None:
    worker = rig.worker()
    worker.answer(rig.backend.id, Kind.SEND_TEXT, 99, b'x')
    rig.hub.turn_until(lambda: b'end' in worker.kinds())
    assert worker.events()[-1].websocket == 99


def test_what_is_no_answer_is_logged_and_harms_nobody(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    worker = rig.worker()
    _, peer = rig.open(worker)
    rig.client.xadd(NAMES.answers(rig.backend.id), {b'text': b'rubbish'})
    worker.answer(rig.backend.id, Kind.SEND_TEXT, 1, b'still here')
    assert rig.messages(peer, 1) == ['still here']
    assert 'that is no answer' in caplog.text


def test_when_the_loop_ends_handlers_are_told_of_the_end(redis_server: RedisServer) -> None:
    clock = Clock()
    with redis_server.client() as client:
        client.set_response_callback('XRANGE', lambda reply, **options: reply)
        with Home(clock=clock) as hub:
            rig = Rig(hub, clock, client)
            worker = rig.worker()
            rig.open(worker)
        assert worker.kinds() == [b'open', b'end']

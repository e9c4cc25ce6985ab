"""The websocket of a view: waiting, bounds and closing."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
from django.test import override_settings

from tests.timeouts import SOON_SECONDS, wait_until
from tests.views import urls
from ws4redis.exceptions import ConnectionClosed, WebSocketError
from ws4redis.protocol.frames import Opcode
from ws4redis.servers.process import existing_hub
from ws4redis.test import WebSocketTestCase
from ws4redis.view_websocket import ViewWebSocket

MEBIBYTE = 1 << 20


@pytest.mark.usefixtures('redis_server')
@override_settings(ROOT_URLCONF='tests.views.urls')
class ViewWebSocketTests(WebSocketTestCase):
    """What views do with their websockets."""

    websocket_timeout = SOON_SECONDS

    def setUp(self) -> None:
        super().setUp()
        urls.endings.clear()
        urls.ended.clear()
        urls.may_read.clear()

    def ending(self) -> tuple[Any, ...]:
        """Wait until the view has ended, and return what it found."""
        assert urls.ended.wait(SOON_SECONDS)
        return urls.endings[0]

    # Receiving

    def test_text_is_str_and_binary_is_bytes(self) -> None:
        with self.websocket('/describes/') as websocket:
            websocket.send('äöü')
            assert websocket.receive() == 'str 3'
            websocket.send('äöü'.encode())
            assert websocket.receive() == 'bytes 6'

    def test_waiting_for_a_time_returns_none_while_the_websocket_stays_open(self) -> None:
        with self.websocket('/times-out/') as websocket:
            assert websocket.receive() == 'nothing came'
            websocket.send('hello')
            assert websocket.receive() == 'then hello'

    def test_reading_never_blocks_and_returns_the_fallback(self) -> None:
        with self.websocket('/polls/') as websocket:
            assert websocket.receive() == 'empty'
            websocket.send('one')
            assert websocket.receive() == 'one False'

    def test_messages_of_one_packet_come_one_by_one_in_order(self) -> None:
        with self.websocket('/echo/') as websocket:
            for number in range(500):
                websocket.send(str(number))
            assert websocket.receive_many(500) == [str(number) for number in range(500)]

    def test_values_come_and_go_as_json(self) -> None:
        with self.websocket('/json-sum/') as websocket:
            websocket.send_json([1, 2, 3])
            assert websocket.receive_json() == {'sum': 6}

    def test_a_client_that_sends_no_json_where_it_should_is_closed_with_1007(self) -> None:
        with self.websocket('/json-sum/') as websocket:
            websocket.send('{')
            assert websocket.wait_closed() == 1007

    # The client's end

    def test_a_client_that_closes_ends_the_wait_with_none(self) -> None:
        with self.websocket('/reports-end/') as websocket:
            assert websocket.receive() == 'open'
            websocket.close(3999, 'bye')
        assert self.ending() == (None, True, 3999, 'bye')

    def test_a_client_that_disappears_ends_the_wait_at_once(self) -> None:
        websocket = self.websocket('/reports-end/')
        assert websocket.receive() == 'open'
        websocket.drop()
        assert self.ending() == (None, True, 1006, '')

    def test_a_close_frame_ends_the_wait_though_the_client_holds_the_connection(self) -> None:
        with self.websocket('/reports-end/') as websocket:
            assert websocket.receive() == 'open'
            websocket._send_frame(Opcode.CLOSE, b'\x03\xe8')
            assert self.ending() == (None, True, 1000, '')

    def test_a_protocol_error_of_the_client_ends_the_wait(self) -> None:
        with self.websocket('/reports-end/') as websocket:
            assert websocket.receive() == 'open'
            websocket._connection.send_bytes(b'\xff\xff')
            assert websocket.wait_closed() == 1002
        assert self.ending()[:2] == (None, True)

    # The view's end

    def test_a_view_may_close_with_a_code_and_a_reason(self) -> None:
        with self.websocket('/closes/') as websocket:
            assert websocket.receive() == 'last'
            assert websocket.wait_closed() == 4321
            assert websocket.close_reason == 'enough'

    # Bounds

    def test_a_client_that_does_not_read_is_given_up_with_1013(self) -> None:
        websocket = self.websocket('/floods/')
        # Nor is that an error of the view.
        with self.assertNoLogs('django.request', 'ERROR'):
            count, code, reason = self.ending()
            self.server_thread.httpd.wait_until_idle(SOON_SECONDS)
        websocket.drop()
        assert (code, reason) == (1013, 'cannot keep up')
        assert count >= 10

    def test_a_client_is_not_read_while_the_view_does_not_read(self) -> None:
        bounds = {'WS4REDIS_MAX_QUEUE_BYTES': MEBIBYTE, 'WS4REDIS_MAX_BYTES_PER_SECOND': None}
        with override_settings(**bounds):
            with self.websocket('/reads-late/', timeout=2 * SOON_SECONDS) as websocket:
                assert websocket.receive() == 'open'
                sender = threading.Thread(target=self.send_much, args=(websocket,))
                sender.start()
                hub = existing_hub()
                assert hub is not None
                wait_until(lambda: any(held.paused for held in hub))
                received = hub.statistics.messages_received
                assert received * 65536 < 2 * MEBIBYTE
                urls.may_read.set()
                sender.join(SOON_SECONDS)
                assert websocket.receive_json() == [400, 400 * 65536]

    def send_much(self, websocket: Any) -> None:
        for _ in range(400):
            websocket.send(b'x' * 65536)
        websocket.send('end')

    def test_many_empty_messages_are_bounded_too(self) -> None:
        with override_settings(WS4REDIS_MAX_QUEUE_BYTES=10_000):
            with self.websocket('/reads-late/') as websocket:
                assert websocket.receive() == 'open'
                for _ in range(2000):
                    websocket.send('')
                websocket.send('end')
                hub = existing_hub()
                assert hub is not None
                wait_until(lambda: any(held.paused for held in hub))
                urls.may_read.set()
                assert websocket.receive_json() == [2000, 0]

    def test_a_code_or_a_reason_that_cannot_be_sent_is_refused_before_it_closes(self) -> None:
        with self.websocket('/closes-wrongly/') as websocket:
            assert websocket.receive_many(3) == ['ValueError', 'ValueError', 'TypeError']
            assert websocket.wait_closed() == 1000

    def test_what_is_neither_text_nor_bytes_is_refused_rather_than_sent(self) -> None:
        with self.websocket('/sends-no-messages/') as websocket:
            for name in ('int', 'NoneType', 'list'):
                refusal = websocket.receive()
                assert isinstance(refusal, str)
                assert refusal.startswith(f'TypeError: a message is str or bytes, not {name}')

    def test_a_message_larger_than_the_bound_arrives_all_the_same(self) -> None:
        with self.websocket('/sends-large/') as websocket:
            message = websocket.receive()
            assert isinstance(message, bytes)
            assert len(message) == 5 * MEBIBYTE
            assert websocket.receive() == 'done'

    # Several views

    def test_views_send_to_each_others_websockets(self) -> None:
        with self.websockets('/chat/', 5) as websockets:
            for websocket in websockets:
                assert websocket.receive() == 'joined'
            websockets[0].send('hello all')
            for websocket in websockets:
                assert websocket.receive() == 'hello all'

    def test_a_view_publishes_to_websockets_of_the_loop(self) -> None:
        with (
            self.websocket('/ws/views?subscribe-broadcast') as subscriber,
            self.websocket('/publishes/') as websocket,
        ):
            websocket.send('to everyone')
            assert websocket.receive() == 'published'
            assert subscriber.receive() == 'to everyone'


# By itself, without a socket


class ImmediateWebSocket:
    """Stands for the loop's websocket: takes all at once."""

    def __init__(self, hub: Any) -> None:
        from ws4redis.hub.websocket import Phase
        from ws4redis.protocol.wire import PLAIN

        self.hub = hub
        self.wire = PLAIN
        self.queued_bytes = 0
        self.phase = Phase.OPEN
        self.sent: list[bytes] = []
        self.closed_with: tuple[int, str] | None = None
        self.is_paused = False

    def send(self, frame: bytes, *, messages: int = 0) -> None:
        self.sent.append(frame)

    def close(self, code: int, reason: str) -> None:
        self.closed_with = code, reason

    def pause_reading(self, why: Any) -> None:
        self.is_paused = True

    def resume_reading(self, why: Any) -> None:
        self.is_paused = False


class ImmediateHome:
    """Stands for the websockets of a process, with a loop that calls at once."""

    def __init__(self, max_queue_bytes: int = MEBIBYTE) -> None:
        from ws4redis.loop.drivers import ThreadDriver

        self.loop = self
        self.driver = ThreadDriver(pool_size=1)
        self.options = self
        self.max_queue_bytes = max_queue_bytes

    def call_soon(self, function: Any, *args: Any) -> None:
        function(*args)


class ImmediateOpening:
    """Stands for a handshake that is always completed."""

    subprotocol = None

    def __init__(self, hub: ImmediateHome) -> None:
        self.hub = hub
        self.websocket = ImmediateWebSocket(hub)

    def make_websocket(self, receiver: Any) -> ImmediateWebSocket:
        return self.websocket

    def complete(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def open_websocket(max_queue_bytes: int = MEBIBYTE) -> tuple[Any, ImmediateWebSocket]:
    """Return a view's websocket and the loop's."""
    opening = ImmediateOpening(ImmediateHome(max_queue_bytes))
    websocket = ViewWebSocket()
    websocket.admit(opening)  # type: ignore[arg-type]
    return websocket, opening.websocket


def test_messages_are_taken_once_each_by_many_threads() -> None:
    websocket, inner = open_websocket()
    taken: list[Any] = []

    def take() -> None:
        while (message := websocket.wait()) is not None:
            taken.append(message)

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        websocket.receive_message(inner, Opcode.TEXT, json.dumps(number).encode())
    wait_until(lambda: len(taken) == 2000)
    websocket.websocket_closed(inner, 1000, '')
    for thread in threads:
        thread.join(SOON_SECONDS)
        assert not thread.is_alive()
    assert Counter(map(int, taken)) == Counter(range(2000))


def test_what_came_before_the_end_is_still_taken() -> None:
    websocket, inner = open_websocket()
    websocket.receive_message(inner, Opcode.TEXT, b'one')
    websocket.receive_message(inner, Opcode.BINARY, b'two')
    websocket.websocket_closing(inner, 1001, 'away')
    assert websocket.is_closed()
    assert websocket.count_messages() == 2
    assert list(websocket) == ['one', b'two']
    assert websocket.wait() is None
    assert (websocket.close_code, websocket.close_reason) == (1001, 'away')


def test_sending_on_a_closed_websocket_raises_with_its_code() -> None:
    websocket, inner = open_websocket()
    websocket.send('x')
    websocket.websocket_closed(inner, 1001, 'away')
    with pytest.raises(ConnectionClosed) as caught:
        websocket.send('y')
    assert (caught.value.code, caught.value.reason) == (1001, 'away')
    assert websocket.raised(caught.value)
    assert len(inner.sent) == 1


def test_closing_drops_what_was_not_taken_and_ends_every_wait() -> None:
    websocket, inner = open_websocket()
    websocket.receive_message(inner, Opcode.TEXT, b'one')
    websocket.close(4000, 'enough')
    assert websocket.wait() is None
    assert inner.closed_with == (4000, 'enough')
    websocket.close()
    assert inner.closed_with == (4000, 'enough')


def test_a_code_that_may_not_be_sent_is_an_error_of_the_caller() -> None:
    websocket, inner = open_websocket()
    for code in (1005, 1006, 999, 5000):
        with pytest.raises(ValueError):
            websocket.close(code)
    assert inner.closed_with is None
    assert not websocket.is_closed()


@pytest.mark.parametrize(
    ('arguments', 'closed_with'),
    [
        ((), (1000, '')),
        ((None,), (1000, '')),
        ((1000, b'so long'), (1000, 'so long')),
        ((4000, None), (4000, '')),
    ],
)
def test_closing_takes_what_dwebsocket_took(
    arguments: tuple[Any, ...], closed_with: tuple[int, str]
) -> None:
    websocket, inner = open_websocket()
    websocket.send('x')
    assert not websocket.closed
    websocket.close(*arguments)
    assert inner.closed_with == closed_with
    assert websocket.closed


def test_sending_anything_to_a_closed_websocket_says_that_it_is_closed() -> None:
    websocket, _ = open_websocket()
    with pytest.raises(TypeError):
        websocket.send(None)
    websocket.close()
    for message in ('x', None, 5):
        with pytest.raises(ConnectionClosed):
            websocket.send(message)


def test_some_looks_past_the_end_are_answered_and_then_the_view_is_ended() -> None:
    websocket, inner = open_websocket()
    websocket.receive_message(inner, Opcode.TEXT, b'last')
    websocket.websocket_closed(inner, 1001, '')
    assert websocket.read() == 'last'
    assert [websocket.read('nothing'), websocket.wait(), list(websocket)] == ['nothing', None, []]
    assert not websocket.has_messages()
    with pytest.raises(ConnectionClosed):
        for _ in range(100):
            websocket.read()


def test_reading_pauses_at_the_bound_and_resumes_at_half_of_it() -> None:
    websocket, inner = open_websocket(max_queue_bytes=10_000)
    count = 0
    while not inner.is_paused:
        websocket.receive_message(inner, Opcode.TEXT, b'x' * 900)
        count += 1
    assert 9 <= count <= 11
    while inner.is_paused:
        assert websocket.read() is not None
        count -= 1
    assert 3 <= count <= 6


def test_sending_waits_for_room_and_goes_on_when_there_is_some() -> None:
    websocket, inner = open_websocket(max_queue_bytes=1000)
    inner.queued_bytes = 1000
    sent = threading.Event()

    def send() -> None:
        websocket.send('x')
        sent.set()

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: websocket._writers)
    assert not sent.is_set()
    inner.queued_bytes = 0
    websocket.websocket_drained(inner)
    assert sent.wait(SOON_SECONDS)
    thread.join(SOON_SECONDS)
    assert inner.sent == [b'\x81\x01x']


def test_sending_gives_up_after_the_time_out_and_closes_with_1013() -> None:
    websocket, inner = open_websocket(max_queue_bytes=1000)
    inner.queued_bytes = 1000
    with pytest.raises(ConnectionClosed) as caught:
        websocket.send('x', timeout=0.01)
    assert caught.value.code == 1013
    assert inner.closed_with == (1013, 'cannot keep up')
    assert inner.sent == []


def test_a_sender_that_waits_is_woken_when_the_client_leaves() -> None:
    websocket, inner = open_websocket(max_queue_bytes=1000)
    inner.queued_bytes = 1000
    raised: list[int] = []

    def send() -> None:
        try:
            websocket.send('x', timeout=60)
        except ConnectionClosed as exc:
            raised.append(exc.code)

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: websocket._writers)
    websocket.websocket_closed(inner, 1006, '')
    thread.join(SOON_SECONDS)
    assert raised == [1006]


def test_a_websocket_that_no_view_has_accepted_cannot_be_used() -> None:
    websocket = ViewWebSocket()
    with pytest.raises(WebSocketError, match='accepts websockets'):
        websocket.send('x')
    assert not websocket.is_accepted

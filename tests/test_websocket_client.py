"""The tests' own websocket client, against the server of the library `websockets`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from tests.timeouts import SOON_SECONDS
from tests.websocket_client import (
    BINARY,
    CONTINUATION,
    PONG,
    TEXT,
    ConnectionEnded,
    FrameBuffer,
    HandshakeRefused,
    RawWebSocket,
    WebSocketCrowd,
    encode_frame,
    expected_accept,
)

#: The codes that clients have answered a close frame with.
answers: queue.Queue[int | None] = queue.Queue()


def echo(websocket: ServerConnection) -> None:
    for message in websocket:
        if message == 'close':
            websocket.close(4001, 'as asked')
        elif message == 'close and note the answer':
            websocket.close(4002, 'as asked')
            answer = websocket.protocol.close_rcvd
            answers.put(answer.code if answer is not None else None)
        else:
            websocket.send(message)


@pytest.fixture(scope='module')
def url() -> Iterator[str]:
    server: Server
    with serve(echo, '127.0.0.1', 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'ws://127.0.0.1:{server.socket.getsockname()[1]}'
        server.shutdown()
        thread.join()


def test_the_accept_key_is_the_one_of_the_rfc() -> None:
    assert expected_accept('dGhlIHNhbXBsZSBub25jZQ==') == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='


@pytest.mark.parametrize('size', [0, 1, 125, 126, 65535, 65536])
def test_a_frame_is_read_as_it_was_written(size: int) -> None:
    buffer = FrameBuffer()
    data = encode_frame(BINARY, b'x' * size)
    buffer.feed(data[:-1])
    if size:
        assert buffer.next_frame() is None
    buffer.feed(data[-1:])
    frame = buffer.next_frame()
    assert frame is not None
    assert frame.payload == b'x' * size
    assert frame.fin
    assert frame.masked


@pytest.mark.parametrize('message', ['text', 'Grüße', b'\x00\xff', '', 'x' * 70000])
def test_a_message_comes_back(url: str, message: str | bytes) -> None:
    with RawWebSocket(url) as websocket:
        websocket.send(message)
        assert websocket.receive() == message
        assert websocket.close() == (1000, '')


def test_fragments_make_one_message(url: str) -> None:
    with RawWebSocket(url) as websocket:
        websocket.send_fragments(TEXT, [b'a', b'b', b'c'])
        assert websocket.receive() == 'abc'
        websocket.close()


def test_a_ping_is_answered(url: str) -> None:
    with RawWebSocket(url) as websocket:
        websocket.send_ping(b'payload')
        frame = websocket.receive_frame()
        assert (frame.opcode, frame.payload) == (PONG, b'payload')
        websocket.close()


def test_the_servers_close_is_raised_with_code_and_reason(url: str) -> None:
    with RawWebSocket(url) as websocket:
        websocket.send('close')
        with pytest.raises(ConnectionEnded) as caught:
            websocket.receive()
    assert (caught.value.code, caught.value.reason) == (4001, 'as asked')


@pytest.mark.parametrize(
    'frame',
    [
        encode_frame(TEXT, b'unmasked', mask=None),
        encode_frame(TEXT, b'reserved', rsv=4),
        encode_frame(3, b'opcode'),
        encode_frame(CONTINUATION, b'of nothing'),
    ],
    ids=['unmasked', 'reserved bit', 'reserved opcode', 'stray continuation'],
)
def test_frames_that_break_the_protocol_can_be_sent(url: str, frame: bytes) -> None:
    with RawWebSocket(url) as websocket:
        websocket.send_bytes(frame)
        assert websocket.receive_close()[0] == 1002


def test_a_refused_handshake_shows_the_answer(url: str) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(url, headers={'Sec-WebSocket-Version': '12'})
    assert caught.value.response.status == 400
    assert caught.value.response.body


def test_a_header_can_be_left_out(url: str) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(url, headers={'Sec-WebSocket-Key': None})
    assert caught.value.response.status == 400


def test_a_crowd_collects_what_each_receives(url: str) -> None:
    with WebSocketCrowd([url] * 50) as crowd:
        for index in range(50):
            crowd[index].send(f'first {index}')
            crowd[index].send(f'second {index}')
        assert crowd.receive(2) == [[f'first {n}', f'second {n}'] for n in range(50)]
        for index in range(50):
            crowd[index].send('close and note the answer')
        assert crowd.receive_close() == [(4002, 'as asked')] * 50
        assert crowd.number_open == 0
    assert [answers.get(timeout=SOON_SECONDS) for _ in range(50)] == [4002] * 50

"""A TLS connection under the loop: a slow peer gets whole records and frames, whatever happens."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.rig import Home, Peer
from tests.standalone.certificates import make_certificate
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import CLOSE, Frame
from ws4redis.hub.messages import Messages
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase
from ws4redis.protocol.frames import CloseCode
from ws4redis.servers.native.tls import PlainSocket, TlsSocket, begin_tls, make_context


@pytest.fixture(scope='module')
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    certfile, keyfile = make_certificate(Path(tmp_path_factory.mktemp('tls')))
    server = make_context(str(certfile), str(keyfile))
    client = ssl.create_default_context(cafile=str(certfile))
    return server, client


class TlsPair:
    """Both ends of a TLS connection: ours as the loop has it, and the browser's."""

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        server, client = contexts
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        plain = PlainSocket(fileno=near.detach())
        plain.settimeout(0)
        far.settimeout(SOON_SECONDS)
        self.ours: TlsSocket = begin_tls(plain, server)
        self.browser: ssl.SSLSocket

        def agree() -> None:
            self.browser = client.wrap_socket(far, server_hostname='127.0.0.1')

        thread = threading.Thread(target=agree)
        thread.start()
        while (wants_to_write := self.ours.agree()) is not None:
            if wants_to_write:
                select.select([], [plain], [], SOON_SECONDS)
            else:
                select.select([plain], [], [], SOON_SECONDS)
        thread.join(SOON_SECONDS)
        self.browser.settimeout(0)

    def read(self) -> bytes:
        """Return what has arrived; more may."""
        try:
            return self.browser.recv(65536)
        except ssl.SSLWantReadError:
            return b''

    def close(self) -> None:
        self.browser.close()
        self.ours.close()


@pytest.fixture
def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[TlsPair]:
    pair = TlsPair(contexts)
    yield pair
    pair.close()


def unverified_client() -> ssl.SSLContext:
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return client


def test_the_client_chooses_the_cipher(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    chosen = []
    for order in ('ECDHE+AES128+AESGCM:ECDHE+AES256+AESGCM', 'ECDHE+AES256:ECDHE+AES128'):
        client = unverified_client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(order)
        pair = TlsPair((contexts[0], client))
        cipher = pair.browser.cipher()
        assert cipher is not None
        chosen.append(cipher[2])
        pair.close()
    assert chosen == [128, 256]


def test_who_leaves_without_a_word_gets_no_alert(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    pair = TlsPair(contexts)
    far = socket.socket(fileno=pair.browser.detach())
    far.settimeout(SOON_SECONDS)
    far.shutdown(socket.SHUT_WR)
    assert pair.ours.recv(1024) == b''
    pair.ours.close()
    received = b''
    while data := far.recv(65536):
        received += data
    far.close()
    # The ticket alone, and no record of an alert behind it.
    assert received[5 + int.from_bytes(received[3:5], 'big') :] == b''


def test_an_openssl_without_that_option_is_good_enough(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ssl, 'OP_IGNORE_UNEXPECTED_EOF', raising=False)
    certfile, keyfile = make_certificate(tmp_path)
    pair = TlsPair((make_context(str(certfile), str(keyfile)), unverified_client()))
    far = socket.socket(fileno=pair.browser.detach())
    far.shutdown(socket.SHUT_WR)
    assert pair.ours.recv(1024) == b''
    pair.ours.close()
    far.close()


def fill(sock: Any, data: bytes) -> int:
    """Write until nothing more is taken; return how much was."""
    sent = 0
    while True:
        try:
            sent += sock.send(data[sent:])
        except BlockingIOError:
            return sent


def test_it_tells_how_much_of_a_large_write_went_out_and_what_must_come_again(
    pair: TlsPair,
) -> None:
    data = bytes(range(256)) * 4000
    sent = fill(pair.ours, data)
    assert 0 < sent < len(data)
    assert pair.ours.attempted_bytes == min(16384, len(data) - sent)
    received = b''
    while len(received) < len(data):
        received += pair.read()
        if sent < len(data):
            try:
                sent += pair.ours.send(data[sent:])
            except BlockingIOError:
                pass
    assert received == data
    assert pair.ours.attempted_bytes == 0


def tls_peer(hub: Home, pair: TlsPair) -> Peer:
    peer = hub.peer(attached=False)
    peer.websocket.attach(pair.ours)  # type: ignore[arg-type]
    return peer


def frames_until_close(hub: Home, peer: Peer, pair: TlsPair) -> list[Frame]:
    frames: list[Frame] = []

    def is_closed() -> bool:
        peer._frames.feed(pair.read())
        while (frame := peer._frames.next_frame()) is not None:
            frames.append(frame)
        return bool(frames) and frames[-1].opcode == CLOSE

    hub.turn_until(is_closed)
    return frames


@pytest.mark.parametrize('batch', [1, 500])
def test_a_peer_that_cannot_keep_up_gets_whole_messages_and_then_1013(
    pair: TlsPair, batch: int
) -> None:
    with Home(options=HubOptions(max_queue_bytes=30_000)) as hub:
        peer = tls_peer(hub, pair)
        sent = 0
        while peer.websocket.phase is Phase.OPEN:
            payloads = [b'%07d' % number + b'x' * 993 for number in range(sent, sent + batch)]
            peer.websocket.deliver(Messages.of(payloads))
            sent += batch
        *messages, close = frames_until_close(hub, peer, pair)
        assert close.close_code == CloseCode.TRY_AGAIN_LATER
        assert [int(message.payload[:7]) for message in messages] == list(range(len(messages)))
        assert len(messages) >= 29
        assert len(messages) + hub.statistics.messages_dropped == sent


def test_of_a_queue_that_is_given_up_what_openssl_has_begun_is_finished(pair: TlsPair) -> None:
    with Home(options=HubOptions(max_total_queue_bytes=100_000)) as hub:
        peer = tls_peer(hub, pair)
        payloads = [b'%07d' % number + b'x' * 993 for number in range(500)]
        peer.websocket.deliver(Messages.of(payloads))
        hub.turn()
        assert peer.websocket.phase is Phase.CLOSING
        *messages, close = frames_until_close(hub, peer, pair)
        assert close.close_code == CloseCode.TRY_AGAIN_LATER
        assert [message.payload for message in messages] == payloads[: len(messages)]
        assert hub.statistics.messages_dropped == 500 - len(messages)

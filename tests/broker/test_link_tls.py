"""A connection to Redis over TLS, whose layer holds data of which the poller knows nothing."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker.test_link import Rig
from tests.hub.rig import bulk
from tests.standalone.certificates import make_certificate
from tests.timeouts import SOON_SECONDS
from ws4redis.broker.link import pack_command


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp('certificate'))


class TlsPair:
    """Two ends of a TLS connection; ours is given to the link as a connected one."""

    def __init__(self, certificate: tuple[Path, Path]) -> None:
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(*certificate)
        client_context = ssl.create_default_context(cafile=str(certificate[0]))
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.settimeout(SOON_SECONDS)
        wrapped: list[ssl.SSLSocket] = []
        accepts = threading.Thread(
            target=lambda: wrapped.append(server_context.wrap_socket(theirs, server_side=True))
        )
        accepts.start()
        self.ours = client_context.wrap_socket(ours, server_hostname='127.0.0.1')
        accepts.join()
        [self.theirs] = wrapped

    def connect(self) -> socket.socket:
        return self.ours

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def pair(certificate: tuple[Path, Path]) -> Iterator[TlsPair]:
    pair = TlsPair(certificate)
    yield pair
    pair.close()


@pytest.fixture
def rig(pair: TlsPair) -> Iterator[Rig]:
    rig = Rig()
    rig.link._connect_blocking = pair.connect
    rig.start()
    yield rig
    rig.link.stop()
    rig.loop.close()


def turn_until_idle(rig: Rig) -> None:
    """Turn as long as the loop itself has something to do."""
    for _ in range(1000):
        rig.turn()
        if rig.loop.timeout() != 0 and not rig.loop.poller.poll(0):
            return
    raise AssertionError('the loop does not come to rest')


def test_all_replies_are_taken_and_the_loop_comes_to_rest(rig: Rig, pair: TlsPair) -> None:
    pair.theirs.sendall(bulk(b'x' * 100) * 500)
    turn_until_idle(rig)
    assert len(rig.link.replies) == 500


def test_replies_that_were_not_wanted_are_taken_though_nothing_more_arrives(
    rig: Rig, pair: TlsPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After each read the link has enough, for a turn.
    received: list[Any] = []

    def take(reply: Any) -> None:
        received.append(reply)
        rig.link.may_read = False

    monkeypatch.setattr(rig.link, 'reply_received', take)
    monkeypatch.setattr('ws4redis.broker.link.READ_BYTES', 500)
    # One record of TLS, which its layer reads from the socket as a whole.
    pair.theirs.sendall(bulk(b'x' * 993) * 10)
    for _ in range(100):
        rig.link.may_read = True
        rig.turn()
    assert len(received) == 10


def test_what_does_not_fit_is_written_later_whole(rig: Rig, pair: TlsPair) -> None:
    commands = b''.join(pack_command(b'SET', str(n), b'x' * 10_000) for n in range(100))
    rig.link.write(commands)
    rig.turn()
    assert rig.link.unwritten_bytes > 0
    # More is queued while TLS still has the beginning to write.
    rig.link.write(pack_command(b'PING'))
    expected = pack_command(b'HELLO', 'wörld', 3) + commands + pack_command(b'PING')
    got = b''
    pair.theirs.settimeout(0)
    while len(got) < len(expected):
        try:
            got += pair.theirs.recv(65536)
        except ssl.SSLWantReadError:
            pass
        rig.turn()
    assert got == expected
    turn_until_idle(rig)


def test_the_end_of_the_other_side_is_noticed(rig: Rig, pair: TlsPair) -> None:
    pair.theirs.close()
    rig.redis.refuses = True
    rig.link._connect_blocking = rig.redis.connect
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected']

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from ws4redis.servers.native.queue import is_half_full


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells')
def test_a_queue_is_half_full_when_half_as_many_wait_as_may() -> None:
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(('127.0.0.1', 0), backlog=4))
        told = []
        for _ in range(3):
            told.append(is_half_full(listener))
            address = listener.getsockname()
            sockets.enter_context(socket.create_connection(address))
        assert told == [False, False, True]
        for _ in range(3):
            listener.accept()[0].close()
        assert not is_half_full(listener)


def test_of_a_unix_socket_nothing_is_known(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / 'a.sock'))
        listener.listen(1)
        assert not is_half_full(listener)

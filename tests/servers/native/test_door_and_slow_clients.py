"""Whoever is slow, leaves or floods the native door is let go of, and delays nobody."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.hub.rig import run_program
from tests.servers.native.served import OPENED, RESET, Serve, Served, post, read_all, request
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.servers.bodies import TEXT
from ws4redis.servers.native.connection import Connection


@pytest.mark.parametrize('how', ['reset', 'half-closed', 'closed'])
@pytest.mark.parametrize(
    'sent', [b'', request()[:20], request('/slow'), request('/none'), post(b'ab', length=3)]
)
def test_who_leaves_at_whatever_moment_leaves_nothing_behind(
    served: Served, sent: bytes, how: str
) -> None:
    client = served.client()
    client.sendall(sent)
    if sent == request('/slow'):
        wait_until(lambda: len(served.door.busy) == 1)
    if how == 'half-closed':
        client.shutdown(socket.SHUT_WR)
    elif how == 'reset':
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
    else:
        client.close()
    wait_until(lambda: served.connections == 0)
    if sent == request('/slow'):
        assert served.given_up.wait(SOON_SECONDS)
    client.close()
    assert served.ask(request()) == OPENED


def test_silence_and_slowness_have_a_deadline(serve: Serve) -> None:
    served = serve(timeout_seconds=0.3)
    with served.client() as silent, served.client() as slow:
        slow.sendall(request()[:20])
        assert read_all(silent).startswith(b'HTTP/1.1 408 ')
        assert read_all(slow).startswith(b'HTTP/1.1 408 ')
    wait_until(lambda: served.connections == 0)


def test_a_request_that_came_while_the_loop_was_late_is_answered(serve: Serve) -> None:
    served = serve()
    with served.client() as client:
        wait_until(lambda: served.connections == 1)
        (connection,) = served.door.arriving

        def come_at_the_last_moment() -> None:
            client.sendall(request())
            connection.expired()

        served.loop.call_soon(come_at_the_last_moment)
        assert read_all(client) == OPENED


def test_whoever_waits_in_a_full_queue_is_accepted_before_it_is_their_turn(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('ws4redis.servers.native.door.ACCEPTS_PER_TURN', 2)
    monkeypatch.setattr('ws4redis.servers.native.door.is_half_full', lambda listener: True)
    served = serve()
    most: list[int] = []
    begin = served.door._begin

    def note(connection: Connection) -> None:
        most.append(len(served.door._waiting))
        begin(connection)

    monkeypatch.setattr(served.door, '_begin', note)
    with contextlib.ExitStack() as clients:
        with served.held():
            waiting = [clients.enter_context(served.client()) for _ in range(9)]
            for client in waiting:
                client.sendall(request())
        assert [read_all(client) for client in waiting] == [OPENED] * len(waiting)
    # Two had their turn at once, then the others in theirs.
    assert most == [0, 0, 6, 5, 4, 3, 2, 1, 0]


def test_nobody_who_waits_for_its_turn_is_left_behind(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('ws4redis.servers.native.door.ACCEPTS_PER_TURN', 1)
    monkeypatch.setattr('ws4redis.servers.native.door.is_half_full', lambda listener: True)
    served = serve()
    has_ended = threading.Event()
    served.loop.at_close(has_ended.set)

    def end_while_some_wait() -> bool:
        if served.door._waiting:
            served.loop.stop()
        return False

    with contextlib.ExitStack() as clients:
        with served.held():
            waiting = [clients.enter_context(served.client()) for _ in range(5)]
            served.loop.at_turn_end(end_while_some_wait)
        assert has_ended.wait(SOON_SECONDS)
        assert [read_all(client) for client in waiting] == [b''] * len(waiting)
    assert not served.door._waiting


def test_a_connection_that_was_kept_is_closed_without_a_word_in_the_end(serve: Serve) -> None:
    served = serve(timeout_seconds=0.3)
    answer = served.ask(request('/none'))
    assert answer.startswith(b'HTTP/1.1 404 ')
    assert b'408' not in answer


def test_an_answer_that_nobody_reads_has_a_deadline(serve: Serve) -> None:
    served = serve(timeout_seconds=0.3)
    with served.client() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wait_until(lambda: served.connections == 1)
        connection = next(iter(served.door.arriving))
        served.loop.call_soon(connection._reply, 200, [TEXT], b'x' * 10_000_000)
        wait_until(lambda: served.connections == 0)


def test_those_who_are_slowest_make_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('ws4redis.servers.native.door.MAX_ARRIVING', 5)
    with contextlib.ExitStack() as clients:
        slow = [clients.enter_context(served.client()) for _ in range(8)]
        for client in slow:
            client.sendall(request()[:20])
        assert served.ask(request()) == OPENED
        # The first of all have been let go of.
        assert read_all(slow[0]) == b''
        wait_until(lambda: served.connections <= 5)


def test_when_it_closes_who_was_kept_alive_is_let_go_of_and_others_are_answered(
    served: Served,
) -> None:
    with served.client() as kept, served.client() as busy:
        kept.sendall(request('/none'))
        kept.recv(65536)
        busy.sendall(request('/slow'))
        wait_until(lambda: len(served.door.busy) == 1)
        served.loop.call_soon(served.door.stop_accepting)
        assert read_all(kept) == b''
        served.may_go_on.set()
        assert read_all(busy) == OPENED
        with pytest.raises(OSError):
            served.client()


EXHAUSTED = """
import logging, resource, socket
import tests.servers.native.served as door
from tests.timeouts import wait_until
logging.basicConfig()
served = door.Served()
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while True:
        held.append(served.client())
        held[-1].sendall(b'GET /')
except OSError:
    pass
for sock in held[:8]:
    sock.close()
# Half of the descriptors are ours: who is slowest has made room, and somebody gets through.
for _ in range(3):
    assert served.ask(door.request()) == door.OPENED
for sock in held:
    sock.close()
wait_until(lambda: served.connections == 0)
served.close()
print('done')
"""


def test_without_a_descriptor_the_slowest_make_room() -> None:
    assert run_program(EXHAUSTED).splitlines()[-1] == 'done'

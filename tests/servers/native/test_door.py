"""The native door: whatever a client does, it is answered, or let go of, and delays nobody."""

from __future__ import annotations

import _socket
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hub.rig import run_program
from tests.standalone.certificates import make_certificate
from tests.timeouts import SOON_SECONDS, scaled, wait_until
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.machine import Call, Steps
from ws4redis.loop.drivers import ThreadDriver
from ws4redis.loop.loop import Loop
from ws4redis.protocol.http1 import RequestHead
from ws4redis.servers.bodies import TEXT, Response
from ws4redis.servers.native.connection import Connection
from ws4redis.servers.native.door import Door
from ws4redis.servers.native.environ import CONNECTION
from ws4redis.servers.native.tls import make_context
from ws4redis.servers.native.trust import TrustedProxies
from ws4redis.standalone.addresses import Address, listen

RESET = struct.pack('ii', 1, 0)
PROXY_LINE = b'PROXY TCP4 192.0.2.7 10.0.0.1 51111 443\r\n'


def request(path: str = '/ws', *lines: str, method: str = 'GET', host: str = 'a') -> bytes:
    head = [f'{method} {path} HTTP/1.1', f'Host: {host}', *lines, '', '']
    return '\r\n'.join(head).encode()


class Served:
    """A door in a loop of its own; what it hands over says `hello` and ends."""

    def __init__(
        self,
        *,
        trusted: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
        takes_proxy_protocol: bool = False,
        timeout_seconds: float = SOON_SECONDS,
    ) -> None:
        self.loop = Loop(ThreadDriver(pool_size=2))
        listener = listen(Address(port=0))
        self.address = listener.getsockname()
        self.may_go_on = threading.Event()
        self.environs: list[dict[str, Any]] = []
        self.given_up = threading.Event()
        self.statuses: list[int] = []
        self.door = Door(
            self.loop,
            _socket.socket(fileno=listener.detach()),
            self.answer,
            response_to=self.response_to,
            refused=self.statuses.append,
            body_limit=lambda head: 10_000 if head.path == '/body' else None,
            trusted=TrustedProxies(trusted),
            tls=tls,
            takes_proxy_protocol=takes_proxy_protocol,
            timeout_seconds=timeout_seconds,
        )
        self.loop.call_soon(self.door.start)
        self.loop.driver.start(self.loop)

    def answer(self, environ: dict[str, Any]) -> Steps[Response | None]:
        self.environs.append(environ)
        path = environ['PATH_INFO']
        if path == '/fails':
            raise RuntimeError('a secret')
        if path == '/slow':
            try:
                yield Call(self.loop, self.may_go_on.wait, SOON_SECONDS, seconds=SOON_SECONDS)
            except GeneratorExit:
                self.given_up.set()
                raise
        if path == '/slow-page':
            yield Call(self.loop, self.may_go_on.wait, SOON_SECONDS, seconds=SOON_SECONDS)
        if path in ('/page', '/slow-page'):
            return Response(200, [TEXT], environ['REQUEST_METHOD'].encode())
        if path == '/body':
            length = int(environ['CONTENT_LENGTH'])
            return Response(200, [TEXT], environ['wsgi.input'].read(length)[::-1])
        if path != '/ws' and path != '/slow':
            raise HandshakeError(404, 'nothing here')
        sock = environ[CONNECTION].hand_over([('Upgrade', 'websocket')])
        sock.send(b'hello')
        sock.close()
        return None

    def response_to(self, exc: BaseException, head: RequestHead) -> Response:
        error = exc if isinstance(exc, HandshakeError) else HandshakeError(500, 'Sorry.')
        return Response(error.status, [TEXT], error.body.encode())

    def client(self) -> socket.socket:
        client = socket.create_connection(self.address, scaled(5))
        client.settimeout(scaled(5))
        return client

    def ask(self, data: bytes) -> bytes:
        """Send bytes; return all that comes until the door ends."""
        with self.client() as client:
            client.sendall(data)
            return read_all(client)

    @property
    def connections(self) -> int:
        return len(self.door.arriving) + len(self.door.busy) + len(self.door.lingering)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the loop from doing anything meanwhile."""
        is_held, may_go_on = threading.Event(), threading.Event()

        def hold() -> None:
            is_held.set()
            may_go_on.wait(SOON_SECONDS)

        self.loop.call_soon(hold)
        assert is_held.wait(SOON_SECONDS)
        yield
        may_go_on.set()

    def close(self) -> None:
        self.may_go_on.set()
        self.loop.stop()
        assert self.loop.driver.wait_stopped(SOON_SECONDS)
        assert self.connections == 0


def read_all(client: Any) -> bytes:
    answer = b''
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            answer += data
    return answer


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    opened: list[Served] = []

    def make(**options: Any) -> Served:
        served = Served(**options)
        opened.append(served)
        return served

    yield make
    for served in opened:
        served.close()


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    certfile, keyfile = make_certificate(tmp_path_factory.mktemp('tls'))
    return str(certfile), str(keyfile)


OPENED = b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello'


def test_a_request_is_answered_and_its_socket_handed_over(served: Served) -> None:
    assert served.ask(request()) == OPENED
    assert served.environs[0]['REMOTE_ADDR'] == '127.0.0.1'


def test_one_byte_at_a_time_makes_no_difference(served: Served) -> None:
    with served.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request():
            client.sendall(bytes([byte]))
        assert read_all(client) == OPENED


@pytest.mark.parametrize(
    ('data', 'status'),
    [
        (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400),
        (b'nonsense\r\n\r\n', 400),
        (b'GET /ws HTTP/1.1\nHost: a\n\n', 400),
        (request('/ws', 'Host: b'), 400),
        (request('/ws', 'Content-Length: 3', 'Content-Length: 4'), 400),
        (b'GET /ws HTTP/1.1\r\n\r\n', 400),
        (b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505),
        (b'GET /ws HTTP/2.0\r\nHost: a\r\n\r\n', 505),
        (b'GET /' + b'a' * 10_000, 414),
        (request('/ws', 'A: ' + 'b' * 65536), 431),
        (request('ftp://b/ws'), 400),
    ],
)
def test_what_is_no_request_is_refused(served: Served, data: bytes, status: int) -> None:
    answer = served.ask(data)
    assert answer.startswith(f'HTTP/1.1 {status} '.encode())
    assert b'\r\nConnection: close\r\n' in answer
    assert served.statuses == [status]
    assert not served.environs
    wait_until(lambda: served.connections == 0)


def test_an_absolute_target_is_as_good(served: Served) -> None:
    assert served.ask(request('http://b:81/ws')) == OPENED
    assert served.environs[0]['HTTP_HOST'] == 'b:81'


def test_a_refusal_keeps_the_connection_for_another_request(served: Served) -> None:
    with served.client() as client:
        for _ in range(3):
            client.sendall(request('/none'))
            answer = client.recv(65536)
            assert answer.startswith(b'HTTP/1.1 404 ')
            assert b'Connection: keep-alive' in answer
        client.sendall(request())
        assert read_all(client) == OPENED


def test_requests_in_one_packet_are_answered_in_order(served: Served) -> None:
    answers = served.ask(request('/none') + request('/page') + request())
    assert answers.startswith(b'HTTP/1.1 404')
    assert b'GETHTTP/1.1 101' in answers
    assert answers.endswith(b'hello')


@pytest.mark.parametrize('length', [10, None])
def test_a_request_that_comes_before_the_answer_is_answered_next(
    served: Served, length: int | None
) -> None:
    second = request('/page', 'Connection: close', method='HEAD')
    with served.client() as client:
        client.sendall(request('/slow-page'))
        wait_until(lambda: len(served.door.busy) == 1)
        (connection,) = served.door.busy
        client.sendall(second[:length])
        wait_until(lambda: connection._reader.rest == second[:length])
        if length is not None:
            client.sendall(second[length:])
        served.may_go_on.set()
        answer = read_all(client)
    assert answer.count(b'HTTP/1.1 200 ') == 2
    assert [environ['REQUEST_METHOD'] for environ in served.environs] == ['GET', 'HEAD']


def test_a_thousand_requests_in_one_packet_let_others_through(served: Served) -> None:
    with served.client() as flood:
        flood.sendall(request('/none') * 1000)
        assert served.ask(request()) == OPENED
        answer = b''
        while answer.count(b'nothing here') < 1000:
            answer += flood.recv(65536)


@pytest.mark.parametrize('line', ['Content-Length: 5', 'Transfer-Encoding: chunked'])
def test_a_body_ends_the_connection_after_the_answer(served: Served, line: str) -> None:
    with served.client() as client:
        client.sendall(request('/none', line, method='POST') + b'GET /ws HTTP/1.1\r\n\r\n')
        answer = read_all(client)
    assert b'Connection: close' in answer
    assert answer.count(b'HTTP/1.1') == 1


def post(body: bytes, *lines: str, length: int | None = None) -> bytes:
    announced = f'Content-Length: {len(body) if length is None else length}'
    return request('/body', announced, *lines, method='POST') + body


def test_a_body_that_is_wanted_is_read_and_the_connection_kept(served: Served) -> None:
    with served.client() as client:
        for body in (b'abc', b'', b'x' * 9_999 + b'y'):
            client.sendall(post(body))
            answer = b''
            while not answer.endswith(body[::-1]) or b'\r\n\r\n' not in answer:
                answer += client.recv(65536)
            assert b'Connection: keep-alive' in answer
    both = served.ask(post(b'abc') + post(b'def', 'Connection: close'))
    assert both.endswith(b'fed')
    assert b'cba' in both


def test_a_body_may_come_byte_by_byte(served: Served) -> None:
    with served.client() as client:
        for byte in post(b'abc', 'Connection: close'):
            client.sendall(bytes([byte]))
        assert read_all(client).endswith(b'cba')


def test_who_asks_whether_to_send_a_body_is_told_so(served: Served) -> None:
    with served.client() as client:
        client.sendall(post(b'', 'Expect: 100-continue', 'Connection: close', length=3))
        assert client.recv(65536) == b'HTTP/1.1 100 Continue\r\n\r\n'
        client.sendall(b'abc')
        assert read_all(client).endswith(b'cba')


@pytest.mark.parametrize(
    ('data', 'status'),
    [
        (post(b'', length=10_001), 413),
        (request('/body', f'Content-Length: {"9" * 15}', method='POST'), 413),
        (request('/body', method='POST'), 411),
        (request('/body', 'Transfer-Encoding: chunked', method='POST'), 411),
        (request('/body', 'Content-Length: -1', method='POST'), 400),
        (request('/body', 'Content-Length: +1', method='POST'), 400),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(served: Served, data: bytes, status: int) -> None:
    assert served.ask(data).startswith(f'HTTP/1.1 {status} '.encode())
    assert served.environs == []


def test_a_body_has_the_deadline_of_its_head(serve: Serve) -> None:
    served = serve(timeout_seconds=0.2)
    assert served.ask(post(b'ab', length=3)).startswith(b'HTTP/1.1 408 ')
    with served.client() as client:
        client.sendall(post(b'ab', length=3))
    wait_until(lambda: served.connections == 0)
    assert served.environs == []


def test_the_answer_to_head_has_no_body(served: Served) -> None:
    answer = served.ask(request('/page', 'Connection: close', method='HEAD'))
    assert answer.startswith(b'HTTP/1.1 200 ')
    assert b'Content-Length: 4' in answer
    assert answer.endswith(b'\r\n\r\n')


def test_data_before_the_answer_is_refused(served: Served) -> None:
    assert b'before the handshake was answered' in served.ask(request() + b'\x81\x00')
    with served.client() as client:
        client.sendall(request('/slow'))
        wait_until(lambda: len(served.door.busy) == 1)
        client.sendall(b'\x81\x00')
        # The loop has taken it when it has answered somebody else.
        assert served.ask(request()) == OPENED
        served.may_go_on.set()
        assert client.recv(65536).startswith(b'HTTP/1.1 400 ')


def test_an_exception_is_answered_with_500_and_nothing_of_it(served: Served) -> None:
    answer = served.ask(request('/fails', 'Connection: close'))
    assert answer.startswith(b'HTTP/1.1 500 ')
    assert b'secret' not in answer


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


# Proxies


def test_only_a_trusted_proxy_says_who_the_client_is(serve: Serve) -> None:
    lines = (
        *('X-Forwarded-For: 203.0.113.9, 192.0.2.1', 'X-Forwarded-Proto: https'),
        *('X-Forwarded-Host: b', 'X-Forwarded-Port: 444', 'Forwarded: host=b'),
    )
    for trusted, address, scheme in (
        (('127.0.0.0/8',), '192.0.2.1', 'https'),
        (('127.0.0.1', '192.0.2.0/24'), '203.0.113.9', 'https'),
        (('10.0.0.0/8',), '127.0.0.1', 'http'),
        ((), '127.0.0.1', 'http'),
    ):
        served = serve(trusted=trusted)
        assert served.ask(request('/ws', *lines)) == OPENED
        environ = served.environs[0]
        assert (environ['REMOTE_ADDR'], environ['wsgi.url_scheme']) == (address, scheme)
        # What somebody else claims is not even passed on, once it is said who is believed.
        claims = [name for name in environ if 'FORWARDED' in name]
        assert len(claims) == (0 if trusted == ('10.0.0.0/8',) else len(lines))


def test_a_header_of_the_proxy_protocol_names_the_client(serve: Serve) -> None:
    served = serve(trusted=('127.0.0.1',), takes_proxy_protocol=True)
    assert served.ask(PROXY_LINE + request()) == OPENED
    assert served.environs[0]['REMOTE_ADDR'] == '192.0.2.7'
    with served.client() as client:
        client.sendall(PROXY_LINE)
        wait_until(lambda: served.connections == 1)
        client.sendall(request())
        assert read_all(client) == OPENED


@pytest.mark.parametrize(
    ('trusted', 'data'),
    [
        (('127.0.0.1',), request()),
        (('127.0.0.1',), PROXY_LINE[:10]),
        (('10.0.0.1',), PROXY_LINE + request()),
    ],
)
def test_whoever_is_no_proxy_of_ours_is_not_answered(
    serve: Serve, trusted: tuple[str, ...], data: bytes
) -> None:
    served = serve(trusted=trusted, takes_proxy_protocol=True)
    assert served.ask(data) == b''
    assert not served.environs


# TLS


def tls_client(
    served: Served, cafile: str, *, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    context = CONTEXTS.setdefault(cafile, ssl.create_default_context(cafile=cafile))
    return context.wrap_socket(served.client(), server_hostname='127.0.0.1', session=session)


CONTEXTS: dict[str, ssl.SSLContext] = {}


def test_tls_is_spoken_and_a_session_resumed(serve: Serve, certificate: tuple[str, str]) -> None:
    served = serve(tls=make_context(*certificate))
    with tls_client(served, certificate[0]) as client:
        client.sendall(request())
        assert read_all(client) == OPENED
        session = client.session
    with tls_client(served, certificate[0], session=session) as client:
        client.sendall(request())
        assert read_all(client) == OPENED
        assert client.session_reused
    assert (served.door.tls_agreed, served.door.tls_resumed) == (2, 1)
    assert served.environs[0]['wsgi.url_scheme'] == 'https'


def test_plain_http_on_the_tls_port_is_told_so(serve: Serve, certificate: tuple[str, str]) -> None:
    served = serve(tls=make_context(*certificate))
    answer = served.ask(request())
    assert answer.startswith(b'HTTP/1.1 400 ')
    assert b'This port speaks TLS' in answer
    wait_until(lambda: served.connections == 0)


@pytest.mark.parametrize('sent', [b'', b'\x16\x03\x01\x02\x00', b'\x16' * 100])
def test_a_handshake_of_tls_that_gets_nowhere_has_a_deadline(
    serve: Serve, certificate: tuple[str, str], sent: bytes
) -> None:
    served = serve(tls=make_context(*certificate), timeout_seconds=0.3)
    with served.client() as client:
        client.sendall(sent)
        read_all(client)
    wait_until(lambda: served.connections == 0)
    with tls_client(served, certificate[0]) as good:
        good.sendall(request())
        assert read_all(good) == OPENED


def test_a_handshake_of_tls_that_comes_byte_by_byte_succeeds(
    serve: Serve, certificate: tuple[str, str]
) -> None:
    served = serve(
        tls=make_context(*certificate), trusted=('127.0.0.1',), takes_proxy_protocol=True
    )
    context = ssl.create_default_context(cafile=certificate[0])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname='127.0.0.1')
    with served.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(PROXY_LINE)

        def send() -> None:
            for byte in outgoing.read():
                client.sendall(bytes([byte]))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                send()
                incoming.write(client.recv(65536))
        tls.write(request())
        send()
        incoming.write(read_all(client))
        answer = tls.read(1000)
    assert answer.startswith(OPENED[:30])
    assert served.environs[0]['REMOTE_ADDR'] == '192.0.2.7'


EXHAUSTED = """
import logging, resource, socket
import tests.servers.native.test_door as door
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

"""A websocket through the whole chain, from here to the loop and back, each hop timed."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import redis

from ws4redis.broker.channels import channel_names
from ws4redis.broker.connections import client_of_key
from ws4redis.conf import conf
from ws4redis.doctor.findings import Finding, error, good, note, warning
from ws4redis.doctor.refusals import Answer, host_of, own_origin, remedy_for
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.handshake import accept_key
from ws4redis.protocol.masking import apply_mask

TIMEOUT_SECONDS = 5.0
SUBJECT = 'websocket'
_DEFAULT_PORTS = {'ws': 80, 'wss': 443}

# Of a refusal's body, which is a sentence if it is ours.
BODY_BYTES = 2000
BODY_SECONDS = 1.0


class ProbeFailed(Exception):
    """Carry the finding that ends a probe."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


@dataclass
class Probe:
    """One websocket to a facility of its own.

    ``url`` is ``ws://`` or ``wss://`` with the host and perhaps the prefix of websockets;
    ``origin`` and ``cookie`` are sent as headers of these names. Without ``origin`` it is that of
    the URL, as browsers send it; ``''`` sends none. ``stays_quiet`` tells whether to wait for
    pings of the server.
    """

    url: str
    origin: str | None = None
    cookie: str | None = None
    verify_tls: bool = True
    stays_quiet: bool = True
    facility: str = field(default_factory=lambda: f'ws4redis-doctor-{secrets.token_hex(4)}')

    def run(self) -> Iterator[Finding]:
        """Yield a finding per hop, up to the first that fails."""
        try:
            parts = self._parse_url()
            sock, finding = self._connect(parts)
            yield finding
            with closing(sock):
                yield self._shake_hands(sock, parts)
                yield self._ping(sock)
                yield self._receive_published(sock)
                if self.stays_quiet:
                    yield self._stay_quiet(sock)
        except ProbeFailed as exc:
            yield exc.finding

    def _parse_url(self) -> SplitResult:
        parts = urlsplit(self.url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ProbeFailed(
                error(
                    SUBJECT,
                    f'{self.url!r} is not the address of a websocket',
                    'Write ws://host:port/ws/ or wss://host/ws/.',
                )
            )
        return parts

    # Hop 1: the network

    def _connect(self, parts: SplitResult) -> tuple[socket.socket, Finding]:
        assert parts.hostname is not None
        address = (parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])
        started = time.perf_counter()
        try:
            sock = socket.create_connection(address, TIMEOUT_SECONDS)
            if parts.scheme == 'wss':
                sock = self._tls_context().wrap_socket(sock, server_hostname=parts.hostname)
        except ssl.SSLError as exc:
            raise ProbeFailed(
                error(
                    'connection',
                    f'TLS with {address[0]}:{address[1]} fails: {exc}',
                    'Correct the certificate of the proxy; --insecure ignores it.',
                )
            ) from None
        except OSError as exc:
            raise ProbeFailed(
                error(
                    'connection',
                    f'{address[0]}:{address[1]} cannot be reached: {exc}',
                    'Is the server running, and listening there?',
                )
            ) from None
        return sock, timed('connection', 'is made', started)

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if not self.verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    # Hop 2: the handshake, through proxies to the websocket loop

    def _shake_hands(self, sock: socket.socket, parts: SplitResult) -> Finding:
        key = base64.b64encode(os.urandom(16)).decode()
        started = time.perf_counter()
        try:
            upgrade = (
                'Upgrade: websocket',
                'Connection: Upgrade',
                'Sec-WebSocket-Version: 13',
                f'Sec-WebSocket-Key: {key}',
            )
            sock.sendall(self._request(parts, *upgrade))
            answer = read_answer(sock)
        except OSError as exc:
            raise ProbeFailed(
                error(
                    'handshake',
                    f'is not answered: {exc}',
                    'A proxy that waits for the websocket loop looks like this, and so does uWSGI '
                    'whose workers are all busy.',
                )
            ) from None
        if answer.status != 101:
            raise ProbeFailed(
                error(
                    'handshake',
                    f'is answered with {answer.status}',
                    remedy_for(answer, parts, self._origin(parts)),
                    status=answer.status,
                )
            )
        if answer.headers.get('sec-websocket-accept') != accept_key(key):
            raise ProbeFailed(
                error(
                    'handshake',
                    'is answered with a wrong Sec-WebSocket-Accept',
                    'A cache answered in place of the websocket loop: exclude WEBSOCKET_URL.',
                )
            )
        return timed('handshake', 'is accepted', started)

    def _origin(self, parts: SplitResult) -> str | None:
        return own_origin(parts) if self.origin is None else self.origin or None

    def _request(self, parts: SplitResult, *headers: str) -> bytes:
        prefix = conf.WEBSOCKET_URL.strip('/')
        path = parts.path.rstrip('/') or f'/{prefix}'
        lines = [
            f'GET {path}/{self.facility}?subscribe-broadcast HTTP/1.1',
            f'Host: {host_of(parts)}',
            *headers,
        ]
        origin = self._origin(parts)
        if origin is not None:
            lines.append(f'Origin: {origin}')
        if self.cookie is not None:
            lines.append(f'Cookie: {self.cookie}')
        return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')

    # Hop 3: frames both ways

    def _ping(self, sock: socket.socket) -> Finding:
        payload = secrets.token_bytes(8)
        started = time.perf_counter()
        try:
            sock.sendall(_control_frame(Opcode.PING, payload))
            while _read_frame(sock) != (Opcode.PONG, payload):
                pass
        except OSError as exc:
            raise ProbeFailed(
                error(
                    'ping',
                    f'comes back without an answer: {exc}',
                    'What the client sends after the handshake does not arrive. uWSGI with --http '
                    'needs --http-websockets; other proxies need their support of websockets.',
                )
            ) from None
        return timed('ping', 'comes back', started)

    # Hop 4: Redis, as these settings name it, to the websocket

    def _receive_published(self, sock: socket.socket) -> Finding:
        payload, started = self._publish()
        try:
            while _read_frame(sock) != (Opcode.TEXT, payload):
                pass
        except OSError as exc:
            raise ProbeFailed(
                warning(
                    'message',
                    f'was published, but does not arrive: {exc}',
                    'A proxy buffers the answer: switch its buffering off for WEBSOCKET_URL.',
                )
            ) from None
        return timed('message', 'published through Redis arrives', started)

    def _publish(self) -> tuple[bytes, float]:
        """Publish something; return it, and when that was."""
        prefix = conf.key_prefix
        (channel,) = channel_names(self.facility, broadcast=True, prefix=prefix)
        payload = secrets.token_hex(8).encode()
        started = time.perf_counter()
        try:
            execute: Any = client_of_key(channel).execute_command
            receivers = execute(conf.publish_word.decode(), channel, payload)
        except redis.RedisError as exc:
            raise ProbeFailed(error('message', f'cannot be published: {exc}', '')) from None
        if not receivers:
            raise ProbeFailed(
                error(
                    'message',
                    f'nobody subscribed to {channel!r} in the Redis that these settings name',
                    'The websocket loop uses another Redis or WS4REDIS_PREFIX, has not reached '
                    'Redis (see its log), or WS4REDIS_ALLOWED_CHANNELS keeps the doctor out.',
                )
            )
        return payload, started

    # Hop 5: nothing, for as long as proxies see nothing

    def _stay_quiet(self, sock: socket.socket) -> Finding:
        """Wait from one ping of the server to the next, the longest quiet time there is."""
        interval = conf.WS4REDIS_PING_INTERVAL
        subject = 'quiet websocket'
        if not interval:
            return note(
                subject,
                'WS4REDIS_PING_INTERVAL is off, so nothing keeps it open',
                'Set it to less than the time-outs of all proxies, such as 20.',
            )
        started = time.monotonic()
        deadline = started + 2 * interval + TIMEOUT_SECONDS
        pings = 0
        try:
            while pings < 2:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                opcode, payload = _read_frame(sock)
                if opcode == Opcode.PING:
                    sock.sendall(_control_frame(Opcode.PONG, payload))
                    pings += 1
        except TimeoutError:
            return warning(
                subject,
                f'got {pings} pings within {time.monotonic() - started:.0f} seconds, though '
                f'WS4REDIS_PING_INTERVAL is {interval:g}',
                'Does the websocket loop run with these settings?',
            )
        except OSError as exc:
            return error(
                subject,
                f'ended after {time.monotonic() - started:.0f} seconds: {exc}',
                'A proxy closes quiet connections sooner than the server sends pings '
                f'(WS4REDIS_PING_INTERVAL = {interval:g}): raise its time-out (NGINX: '
                'proxy_read_timeout; Apache: timeout= of ProxyPass), or lower the setting.',
            )
        return good(subject, f'outlives the {interval:g} seconds between two pings')


def _control_frame(opcode: Opcode, payload: bytes) -> bytes:
    mask = os.urandom(4)
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + apply_mask(payload, mask)


def timed(subject: str, text: str, started: float) -> Finding:
    milliseconds = (time.perf_counter() - started) * 1000
    return good(subject, f'{text} ({milliseconds:.1f} ms)', milliseconds=milliseconds)


def read_answer(sock: socket.socket) -> Answer:
    """Return an HTTP response; its head byte by byte, since frames may follow at once."""
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        head += _read_exactly(sock, 1)
    first, *lines = head.decode('latin-1').split('\r\n')
    words = first.split()
    if len(words) < 2 or not words[1].isdigit():
        raise OSError(f'the answer is not HTTP: {first!r}')
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(':') for line in lines if line)
    }
    status = int(words[1])
    return Answer(status, headers, '' if status in (101, 200) else _read_body(sock))


def _read_body(sock: socket.socket) -> str:
    """Return what comes of a body; how it is framed does not matter for a look at its words."""
    body = b''
    deadline = time.monotonic() + BODY_SECONDS
    # A body may end with the connection, or not at all.
    with suppress(OSError):
        while len(body) < BODY_BYTES:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            more = sock.recv(BODY_BYTES)
            if not more:
                break
            body += more
    return body.decode(errors='replace')


def _read_frame(sock: socket.socket) -> tuple[int, bytes]:
    """Return opcode and payload of one frame of a server (unmasked, not fragmented)."""
    first, length = _read_exactly(sock, 2)
    if length >= 126:
        length = int.from_bytes(_read_exactly(sock, 2 if length == 126 else 8), 'big')
    payload = _read_exactly(sock, length)
    if first & 0x0F == Opcode.CLOSE:
        code = int.from_bytes(payload[:2], 'big')
        raise OSError(
            f'the websocket was closed with {code} {payload[2:].decode(errors="replace")}'
        )
    return first & 0x0F, payload


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b''
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionResetError('the connection was closed')
        data += more
    return data

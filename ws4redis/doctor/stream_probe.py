"""An event stream through the whole chain: what pages fall back to where websockets are blocked."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import SplitResult

from ws4redis.doctor.findings import Finding, good, warning
from ws4redis.doctor.probe import TIMEOUT_SECONDS, Probe, ProbeFailed, read_answer, timed
from ws4redis.doctor.refusals import remedy_for
from ws4redis.protocol.event_stream import MEDIA_TYPE
from ws4redis.servers.handover import SERVER_HEADER

SUBJECT = 'event stream'

_UNBUFFERED = (
    'A proxy or a filter holds the stream back, so pages whose websockets are blocked get nothing. '
    'NGINX: no proxy_ignore_headers X-Accel-Buffering; Apache: flushpackets=on of ProxyPass; '
    'leave text/event-stream out of compression and caches.'
)
_DOORS = {
    'run_wsserver': 'run_wsserver, with the native door',
    'uwsgi': 'uWSGI',
    'wsgi': 'runserver, or another server of WSGI',
}


class StreamProbe(Probe):
    """One event stream to a facility of its own; nothing of it must be mended, only better."""

    def run(self) -> Iterator[Finding]:
        """Yield what is found, up to the first that fails."""
        try:
            parts = self._parse_url()
            sock, _ = self._connect(parts)
            with closing(sock):
                yield from self._open(sock, parts)
                yield self._receive_event(sock)
        except ProbeFailed as exc:
            yield exc.finding

    def _open(self, sock: socket.socket, parts: SplitResult) -> Iterator[Finding]:
        started = time.perf_counter()
        try:
            sock.sendall(self._request(parts, f'Accept: {MEDIA_TYPE}'))
            answer = read_answer(sock)
        except OSError as exc:
            text = f'does not open within {TIMEOUT_SECONDS:g} seconds: {exc}'
            raise ProbeFailed(warning(SUBJECT, text, _UNBUFFERED)) from None
        if answer.status != 200:
            remedy = remedy_for(answer, parts, self._origin(parts))
            text = f'is answered with {answer.status}'
            raise ProbeFailed(warning(SUBJECT, text, remedy, status=answer.status))
        if not answer.headers.get('content-type', '').startswith(MEDIA_TYPE):
            raise ProbeFailed(
                warning(
                    SUBJECT,
                    'is answered by something else',
                    'A proxy leads plain HTTP under WEBSOCKET_URL elsewhere than websockets. '
                    'Apache: a2enmod proxy_http; others: no condition on the header Upgrade.',
                )
            )
        yield timed(SUBJECT, 'opens', started)
        server = answer.headers.get(SERVER_HEADER.lower(), '')
        if server in _DOORS:
            yield good('door', f'is that of {_DOORS[server]}', server=server)

    def _receive_event(self, sock: socket.socket) -> Finding:
        payload, started = self._publish()
        received = b''
        try:
            # However a proxy cuts the stream: what was published is short, and has no line break.
            while payload not in received:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionResetError('the connection was closed')
                received += data
        except OSError as exc:
            text = f'does not bring what is published: {exc}'
            raise ProbeFailed(warning(SUBJECT, text, _UNBUFFERED)) from None
        return timed(SUBJECT, 'brings at once what is published', started)

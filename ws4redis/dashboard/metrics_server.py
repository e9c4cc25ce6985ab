"""The metrics on a port of their own: the process that ``run_wsserver --metrics`` starts."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from ws4redis.conf import conf
from ws4redis.dashboard.access import is_token
from ws4redis.dashboard.answers import Answer, metrics_answer, unauthorized_answer

#: A client that is slower is given up.
CLIENT_SECONDS: Final = 10.0


class MetricsServer:
    """Answer ``GET /metrics`` on a socket that listens, until told to stop."""

    def __init__(self, listener: socket.socket) -> None:
        listener.settimeout(None)
        self._server = ThreadingHTTPServer(('', 0), _Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listener

    def run(self) -> None:
        """Serve; return when stopped."""
        self._server.serve_forever(poll_interval=0.5)
        self._server.server_close()

    def stop(self) -> None:
        """Let :meth:`run` return. Called in any thread, and by handlers of signals."""
        threading.Thread(target=self._server.shutdown, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server_version = 'ws4redis'
    sys_version = ''
    timeout = CLIENT_SECONDS

    def do_GET(self) -> None:
        if self.path.partition('?')[0].rstrip('/') != '/metrics':
            self._send(Answer(404, b'Ask for /metrics\n'))
        elif conf.WS4REDIS_METRICS_TOKEN and not is_token(self.headers.get('Authorization', '')):
            self._send(unauthorized_answer())
        else:
            self._send(metrics_answer())

    do_HEAD = do_GET  # noqa: N815 - the name of http.server

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {'Content-Type': answer.content_type, 'Content-Length': len(answer.body)}
        for name, value in {**headers, **answer.headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: Prometheus comes every few seconds."""

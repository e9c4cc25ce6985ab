"""A web server for the pages on which the browser client is tried out.

``/`` is a page with ``ws4redis.js`` alone, ``/jquery/`` one with jQuery before it (the copy that
comes with Django's admin), ``/shared/`` one with ``ws4redis-shared.js`` after it, ``/streams/``
one with ``ws4redis-streams.js`` after it, ``/elsewhere/`` one without any script.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import django.contrib.admin

import ws4redis

CLIENT = Path(ws4redis.__file__).parent / 'static' / 'js' / 'ws4redis.js'
SHARED = CLIENT.with_name('ws4redis-shared.js')
STREAMS = CLIENT.with_name('ws4redis-streams.js')
JQUERY = Path(django.contrib.admin.__file__).parent / 'static/admin/js/vendor/jquery/jquery.min.js'

# `calls` records what the callbacks of `options()` are called with, in order.
RECORDER = """
    var calls = [];
    function record(name) {
        return function () {
            calls.push([name].concat(Array.prototype.slice.call(arguments)));
        };
    }
    function options(uri, more) {
        return Object.assign({
            uri: uri,
            connecting: record('connecting'),
            connected: record('connected'),
            receive_message: record('receive_message'),
            disconnected: function (event) {
                calls.push(['disconnected', event.type, event.code, event.wasClean]);
            }
        }, more || {});
    }
"""


def _page(*scripts: str) -> str:
    tags = ''.join(f'<script src="{script}"></script>' for script in scripts)
    return f'<!doctype html><html lang="en"><title>ws4redis</title>{tags}<p>Page</p></html>'


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        contents = {
            '/': ('text/html', _page('/recorder.js', '/ws4redis.js')),
            '/jquery/': ('text/html', _page('/jquery.js', '/recorder.js', '/ws4redis.js')),
            '/shared/': ('text/html', _page('/ws4redis.js', '/ws4redis-shared.js')),
            '/streams/': ('text/html', _page('/ws4redis.js', '/ws4redis-streams.js')),
            '/elsewhere/': ('text/html', _page()),
            '/recorder.js': ('text/javascript', RECORDER),
            '/ws4redis.js': ('text/javascript', CLIENT.read_text(encoding='utf-8')),
            '/ws4redis-shared.js': ('text/javascript', SHARED.read_text(encoding='utf-8')),
            '/ws4redis-streams.js': ('text/javascript', STREAMS.read_text(encoding='utf-8')),
            '/jquery.js': ('text/javascript', JQUERY.read_text(encoding='utf-8')),
        }
        if self.path not in contents:
            self.send_error(404)
            return
        content_type, text = contents[self.path]
        body = text.encode()
        self.send_response(200)
        self.send_header('Content-Type', f'{content_type}; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


class StaticPages:
    """Serve the pages on ``.url`` while the context lasts."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f'http://127.0.0.1:{self._server.server_port}/'

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

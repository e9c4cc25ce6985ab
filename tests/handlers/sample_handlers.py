"""Handlers of the tests' own site."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import connection

from ws4redis.handlers import WebSocketHandler
from ws4redis.redis_store import SELF


def log(line: str) -> None:
    """Write a line that a test can wait for."""
    sys.stderr.write(f'{line}\n')
    sys.stderr.flush()


class Echo(WebSocketHandler):
    """Send back what comes."""

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class OldStyle(WebSocketHandler):
    """As a handler of django-ws was written: three methods, and on_close without a code."""

    def on_open(self, message: str | bytes) -> None:
        self.send(f'opened with {message!r}')

    def on_message(self, message: str | bytes) -> None:
        self.send(f'got {message!r}')

    def on_close(self) -> None:  # type: ignore[override]
        log('old style closed')


class Log(WebSocketHandler):
    """Tell all that happens in the log; the first message stays in on_open."""

    def on_connect(self) -> None:
        log('on_connect')
        self.send('welcome')

    def on_open(self, message: str | bytes) -> bool:
        log(f'on_open {message!r}')
        return True

    def on_message(self, message: str | bytes) -> None:
        log(f'on_message {message!r}')

    def on_close(self, code: int) -> None:
        log(f'on_close {code}')


class Faulty(WebSocketHandler):
    """Fail at a message, or at the end."""

    def on_message(self, message: str | bytes) -> None:
        if message == 'fail':
            raise RuntimeError('a fault of the handler')
        self.send(message)

    def on_close(self, code: int) -> None:
        log(f'faulty closed {code}')
        raise RuntimeError('a fault at the end')


class Guarded(WebSocketHandler):
    """Let nobody in but who knows the word, and fail for those who ask for it."""

    def on_connect(self) -> None:
        word = self.request.GET.get('word')
        if word == 'crash':
            raise RuntimeError('a fault in on_connect')
        if word != 'sesame':
            raise PermissionDenied

    def on_close(self, code: int) -> None:
        log(f'guarded closed {code}')


class About(WebSocketHandler):
    """Tell what a handler knows of its websocket."""

    def on_message(self, message: str | bytes) -> None:
        user: Any = self.request.user
        self.send_json(
            {
                'path': self.request.path,
                'get': dict(self.request.GET.items()),
                'namespace': self.namespace,
                'kwargs': self.kwargs,
                'user': user.get_username(),
                'session': self.request.session.get('colour'),
            }
        )


class Slow(WebSocketHandler):
    """Take a while for each message."""

    def on_message(self, message: str | bytes) -> None:
        time.sleep(0.05)
        if message == 'end':
            self.send('done')


class Counting(WebSocketHandler):
    """Check that events come one at a time and in order, and send each number back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.expected = 0

    def on_message(self, message: str | bytes) -> None:
        assert self.lock.acquire(blocking=False), 'two events of one websocket at once'
        try:
            assert int(message) == self.expected, f'{message!r} instead of {self.expected}'
            self.expected += 1
            if self.expected % 100 == 0:
                # Give others the chance to come between.
                time.sleep(0.001)
            self.send(message)
        finally:
            self.lock.release()


class Closing(WebSocketHandler):
    """Close when asked to, in different ways."""

    def on_connect(self) -> None:
        if 'at_once' in self.request.GET:
            self.send('never mind')
            self.close(4000, 'at once')

    def on_message(self, message: str | bytes) -> None:
        if message == 'wait':
            threading.Thread(target=self._tell_when_closed).start()
            self.send('waiting')
        elif message == 'without a text':
            try:
                self.close(4002, None)  # type: ignore[arg-type]
            except TypeError:
                self.close(4003, 'refused')
        else:
            self.send('before')
            self.close(4001, 'as you wish')

    def _tell_when_closed(self) -> None:
        log(f'closed: {self.wait_closed(30)}, {self.is_closed}')


class Publishing(WebSocketHandler):
    """Publish what comes, and use the database."""

    def on_message(self, message: str | bytes) -> None:
        with connection.cursor() as cursor:
            cursor.execute('SELECT 1')
        self.publish(message, facility='from-handler', broadcast=True, sessions=[SELF])
        self.send(json.dumps('published'))

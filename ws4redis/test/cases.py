"""The base class of tests with websockets."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Unpack

import redis
from django.test import Client, LiveServerTestCase, override_settings

from ws4redis.broker.connections import get_client
from ws4redis.conf import conf
from ws4redis.servers.process import drop_hub
from ws4redis.test.audience import Audience, channels_of
from ws4redis.test.client import WebSocketClient
from ws4redis.test.server import WebSocketServerThread

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

#: How long a view may go on after its client has left.
VIEW_END_SECONDS = 5.0


class WebSocketTestCase(LiveServerTestCase):
    """Run Django and the websocket loop in threads of the test, and connect to them.

    Messages go through the Redis of the settings, and what a test publishes stays apart from all
    else there: each class of tests has a prefix of its own in ``WS4REDIS_PREFIX``, unless
    ``isolate_redis`` is false. Settings that are overridden hold for the websockets that open
    afterwards, and each test gets a loop of its own.

    ``websocket_timeout`` is how many seconds the clients wait for anything.
    """

    websocket_timeout = 5.0
    isolate_redis = True
    server_thread_class = WebSocketServerThread
    server_thread: WebSocketServerThread

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if cls.isolate_redis:
            prefix = f'test-{uuid.uuid4().hex}'
            cls.enterClassContext(override_settings(WS4REDIS_PREFIX=prefix))

    def _post_teardown(self) -> None:
        # Before the database is emptied: views may be using it, and their clients have left.
        drop_hub()
        is_idle = self.server_thread.httpd.wait_until_idle(VIEW_END_SECONDS)
        # A handshake that was under way may have begun with others.
        drop_hub()
        if self.isolate_redis:
            self._forget_messages()
        super()._post_teardown()  # type: ignore[misc]
        assert is_idle, f'A view did not end within {VIEW_END_SECONDS:g} s after its client.'

    def _forget_messages(self) -> None:
        client = get_client()
        try:
            for key in client.scan_iter(match=f'{conf.WS4REDIS_PREFIX}:*', count=1000):
                client.delete(key)
        except redis.ConnectionError:
            # Tests of views need no Redis.
            pass

    # Websockets

    def websocket(
        self,
        path: str,
        *,
        user: AbstractBaseUser | None = None,
        headers: Mapping[str, str | None] | None = None,
        subprotocols: Iterable[str] = (),
        timeout: float | None = None,
    ) -> WebSocketClient:
        """Open a websocket; use it in ``with``.

        ``path`` is that of a view, or one under ``WEBSOCKET_URL``, with its query. ``user`` is
        logged in for it; without, it has the cookies of ``self.client``. ``headers`` replace those
        of the handshake, ``None`` removes one; ``Origin`` is that of the test server. ``timeout``
        is in seconds, by default ``websocket_timeout``. Raise ``HandshakeError``, with the server's
        answer, when the websocket is refused.
        """
        return WebSocketClient(
            self.live_server_url.replace('http', 'ws', 1) + path,
            headers={'Origin': self.live_server_url, **(headers or {})},
            cookies=self._cookies(user),
            subprotocols=subprotocols,
            timeout=self.websocket_timeout if timeout is None else timeout,
        )

    @contextmanager
    def websockets(self, path: str, count: int, **options: Any) -> Iterator[list[WebSocketClient]]:
        """Open many websockets at once; arguments as for :meth:`websocket`."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.websocket(path, **options)) for _ in range(count)]

    def _cookies(self, user: AbstractBaseUser | None) -> dict[str, str]:
        client = self.client
        if user is not None:
            client = Client()
            client.force_login(user)  # type: ignore[arg-type]
        return {name: morsel.value for name, morsel in client.cookies.items()}

    # Redis

    @contextmanager
    def assertPublished(  # noqa: N802 (as unittest names its assertions)
        self,
        message: str | bytes | None = None,
        *,
        facility: str,
        timeout: float | None = None,
        **audience: Unpack[Audience],
    ) -> Iterator[list[bytes]]:
        """Assert that a message is published by the end of the ``with`` block, by whomever.

        The audience is given as to ``RedisPublisher``; the message has to come on each of its
        channels, within ``timeout`` seconds after the block. Without ``message``, any will do. The
        value of the ``with`` is a list, which holds the messages that were published so far.
        """
        channels = channels_of(facility, audience)
        expected = message.encode() if isinstance(message, str) else message
        published: list[bytes] = []
        pubsub: Any
        with get_client().pubsub() as pubsub:  # type: ignore[no-untyped-call]
            missing = self._subscribe(pubsub, channels)
            yield published
            deadline = time.monotonic() + (self.websocket_timeout if timeout is None else timeout)
            while missing and (remaining := deadline - time.monotonic()) > 0:
                received = pubsub.get_message(timeout=remaining)
                if received is not None and received['type'] == 'message':
                    published.append(received['data'])
                    if expected is None or received['data'] == expected:
                        missing.discard(received['channel'].decode())
        if missing:
            what = 'No message' if expected is None else repr(expected)
            self.fail(
                f'{what} came on {", ".join(sorted(missing))}; these messages came: {published!r}'
            )

    def _subscribe(self, pubsub: Any, channels: set[str]) -> set[str]:
        """Subscribe, wait until Redis has confirmed, and return the channels."""
        pubsub.subscribe(*channels)
        deadline = time.monotonic() + self.websocket_timeout
        missing = set(channels)
        while missing:
            reply = pubsub.get_message(timeout=deadline - time.monotonic())
            assert reply is not None, 'Redis does not answer.'
            missing.discard(reply['channel'].decode())
        return set(channels)

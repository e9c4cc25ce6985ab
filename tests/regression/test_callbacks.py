"""Callbacks and subscribers that end their process, or take too long."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

import pytest
import redis
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from tests.e2e.kinds import uwsgi
from tests.programs import RedisServer
from tests.timeouts import wait_until
from tests.websocket_client import HandshakeRefused, RawWebSocket
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.policy import admit
from ws4redis.loop.workers import Workers
from ws4redis.subscriber import RedisSubscriber


def exits(request: HttpRequest, *channels: Any) -> None:
    sys.exit('the secret of a callback')


def test_a_task_that_exits_ends_no_thread_of_the_pool() -> None:
    workers = Workers(1)
    done: list[int] = []
    workers.submit(sys.exit, 1)
    workers.submit(done.append, 1)
    wait_until(lambda: done == [1] and not workers.unfinished)
    workers.stop()


@pytest.mark.parametrize('name', ['WS4REDIS_PROCESS_REQUEST', 'WS4REDIS_ALLOWED_CHANNELS'])
def test_a_callback_that_exits_is_answered_with_500(name: str) -> None:
    request = RequestFactory().get('/ws/foo')
    with override_settings(**{name: exits}), pytest.raises(HandshakeError) as caught:
        admit(request)
    assert caught.value.status == 500
    assert 'secret' not in caught.value.body


class NotesRelease(RedisSubscriber):
    def release(self) -> None:
        self._connection.incr('released')
        super().release()


class Exits(NotesRelease):
    def send_persisted_messages(self, websocket: Any) -> None:
        sys.exit('the secret of a subscriber')


class TakesLong(NotesRelease):
    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        time.sleep(0.6)
        super().set_pubsub_channels(request, channels)


def is_released(client: redis.Redis, times: int) -> bool:
    return client.get('released') == str(times).encode()


def refusal(url: str) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(url)
    return caught.value


@pytest.mark.parametrize('options', [{'gevent': 10}, {'gevent': None, 'threads': 2}])
def test_subscribers_that_exit_are_answered_with_500_however_many(
    redis_server: RedisServer, redis_client: redis.Redis, options: dict[str, Any]
) -> None:
    settings = {
        'WS4REDIS_SUBSCRIBER': f'{__name__}.Exits',
        'WS4REDIS_WORKER_THREADS': 1,
    }
    with uwsgi(redis_server, settings, **options) as server:
        for number in range(3):
            refused = refusal(f'{server.ws_url}/ws/foo?subscribe-broadcast').response
            assert refused.status == 500
            assert b'secret' not in refused.body
            wait_until(partial(is_released, redis_client, number + 1))


@pytest.mark.parametrize('options', [{'gevent': 10}, {'gevent': None, 'threads': 2}])
def test_a_subscriber_of_a_handshake_that_took_too_long_is_released(
    redis_server: RedisServer, redis_client: redis.Redis, options: dict[str, Any]
) -> None:
    settings = {
        'WS4REDIS_SUBSCRIBER': f'{__name__}.TakesLong',
        'WS4REDIS_HANDSHAKE_TIMEOUT': 0.3,
    }
    with uwsgi(redis_server, settings, **options) as server:
        assert refusal(f'{server.ws_url}/ws/foo?subscribe-broadcast').response.status == 503
        wait_until(partial(is_released, redis_client, 1))

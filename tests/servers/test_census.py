"""Questions to all processes, which uWSGI's workers answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.contrib.auth import SESSION_KEY

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer, UwsgiServer
from tests.timeouts import wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.broker.census import Question, ask, bell, questions_key, read_answers
from ws4redis.statistics import get_snapshots

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
SETTINGS = {'WS4REDIS_SNAPSHOT_INTERVAL': 0.2, 'WS4REDIS_DRAIN_SECONDS': 0}


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[UwsgiServer]:
    with UwsgiServer(redis_server=redis_server, django_settings=SETTINGS) as server:
        yield server


def cookie_of(username: str) -> dict[str, str]:
    request = logged_in_request(make_user(username))
    assert request.session[SESSION_KEY]
    return {'Cookie': f'sessionid={request.session.session_key}'}


def asked(client: redis.Redis, **question: str) -> dict[str, Any]:
    wait_until(get_snapshots)
    number = ask(client, '', Question(**question))
    wait_until(lambda: read_answers(client, '', number))
    (answer,) = read_answers(client, '', number)
    return answer


def test_a_process_tells_who_is_connected(server: UwsgiServer, redis_client: redis.Redis) -> None:
    url = server.ws_url + '/ws/chat?subscribe-user&subscribe-broadcast'
    begun = int(time.time())
    with (
        RawWebSocket(url, headers=cookie_of('mary')),
        RawWebSocket(url, headers=cookie_of('john')),
        RawWebSocket(server.ws_url + '/ws/chat?subscribe-broadcast'),
    ):
        wait_until(lambda: asked(redis_client)['users'] == 2)
        answer = asked(redis_client)
        assert answer['open'] == 3
        assert answer['names'] == ['john', 'mary']
        john, mary = answer['connections']
        assert set(mary['channels']) == {'user:mary:chat', 'broadcast:chat'}
        assert (mary['user'], mary['transport']) == ('mary', 'websocket')
        assert begun <= mary['since'] <= time.time()
        assert asked(redis_client, user='john')['connections'] == [john]
        assert asked(redis_client, user='nobody')['connections'] == []
        assert asked(redis_client, after='john')['names'] == ['mary']
        assert asked(redis_client, after='mary')['names'] == []


def test_nonsense_is_passed_over_and_the_next_question_is_answered(
    server: UwsgiServer, redis_client: redis.Redis
) -> None:
    with RawWebSocket(server.ws_url + '/ws/chat?subscribe-broadcast'):
        wait_until(get_snapshots)
        for nonsense in ('{', '[]', '{"user": 7}', '\x00'):
            redis_client.xadd(questions_key(''), {'q': nonsense})
            redis_client.publish(bell(''), 'x')
        assert asked(redis_client)['open'] == 1


def test_a_process_that_was_cut_off_answers_again(
    server: UwsgiServer, redis_client: redis.Redis
) -> None:
    with RawWebSocket(server.ws_url + '/ws/chat?subscribe-broadcast'):
        wait_until(get_snapshots)
        redis_client.client_kill_filter(_type='pubsub')

        wait_until(lambda: redis_client.pubsub_numsub(bell(''))[0][1])
        assert asked(redis_client)['open'] == 1


def test_answers_do_not_stay(server: UwsgiServer, redis_client: redis.Redis) -> None:
    with RawWebSocket(server.ws_url + '/ws/chat?subscribe-broadcast'):
        asked(redis_client)
        (key,) = redis_client.keys('*:answers:*')
        assert 0 < redis_client.ttl(key) <= 10
        assert redis_client.ttl(questions_key('')) > 0


def test_a_question_that_nobody_asked_has_no_answers(redis_client: redis.Redis) -> None:
    assert read_answers(redis_client, '', '7-0') == []

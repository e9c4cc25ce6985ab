"""Messages reach their audiences, with real logins, on every kind of server."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import redis
from django.contrib.auth.models import User
from django.http import HttpRequest

from tests.django_requests import logged_in_request, make_user
from tests.e2e.conftest import Connect, cookie_of, post
from tests.e2e.kinds import BOTH_LOOPS, Server
from tests.redis_keys import stored_keys
from tests.websocket_client import RawWebSocket, handshake_request
from ws4redis.publisher import SELF, RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)


def expect_only(websocket: RawWebSocket, message: str) -> None:
    """Expect one message; nothing came before it."""
    assert websocket.receive() == message


def test_a_broadcast_reaches_everybody_on_its_facility_and_nobody_on_another(
    server: Server, connect: Connect, john: HttpRequest
) -> None:
    anonymous = connect(server, 'foo?subscribe-broadcast')
    known = connect(server, 'foo?subscribe-broadcast', request=john)
    elsewhere = connect(server, 'bar?subscribe-broadcast')
    unsubscribed = connect(server, 'foo?publish-broadcast')
    RedisPublisher(facility='foo', broadcast=True).publish_message('to foo')
    RedisPublisher(facility='bar', broadcast=True).publish_message('to bar')
    expect_only(anonymous, 'to foo')
    expect_only(known, 'to foo')
    expect_only(elsewhere, 'to bar')
    unsubscribed.expect_silence(0.05)


def test_a_message_to_a_user_reaches_that_user_alone(
    server: Server, connect: Connect, john: HttpRequest, mary: HttpRequest
) -> None:
    johns = [connect(server, 'foo?subscribe-user', request=john) for _ in range(2)]
    marys = connect(server, 'foo?subscribe-user', request=mary)
    anonymous = connect(server, 'foo?subscribe-user')
    RedisPublisher(facility='foo', users=['john']).publish_message('to john')
    RedisPublisher(facility='foo', users=['mary']).publish_message('to mary')
    for websocket in johns:
        expect_only(websocket, 'to john')
    expect_only(marys, 'to mary')
    anonymous.expect_silence(0.05)


def test_when_many_come_at_once_each_gets_what_is_its_users(
    server: Server, transactional_db: None
) -> None:
    names = [f'user{number}' for number in range(10)]
    logins = [logged_in_request(make_user(name)) for name in names]
    gone = logged_in_request(make_user('gone'))
    User.objects.filter(username='gone').update(is_active=False)
    path = f'{server.ws_url}/ws/foo?subscribe-user'
    with ExitStack() as stack:
        websockets = []
        # Tabs of a browser have the same session.
        for request in [*logins, gone, *logins, *logins]:
            headers = {'Cookie': cookie_of(request)}
            websocket = stack.enter_context(RawWebSocket(path, headers=headers, connect=False))
            websocket.send_bytes(handshake_request(path, headers=headers))
            websockets.append(websocket)
        for websocket in websockets:
            assert websocket.receive_response().status == 101
        for name in [*names, 'gone']:
            RedisPublisher(facility='foo', users=[name]).publish_message(f'to {name}')
        nobodys = websockets.pop(len(names))
        for number, websocket in enumerate(websockets):
            expect_only(websocket, f'to {names[number % len(names)]}')
        nobodys.expect_silence(0.05)


def test_a_message_to_a_group_reaches_its_members(
    server: Server, connect: Connect, john: HttpRequest, mary: HttpRequest
) -> None:
    johns = connect(server, 'foo?subscribe-group', request=john)
    marys = connect(server, 'foo?subscribe-group', request=mary)
    anonymous = connect(server, 'foo?subscribe-group')
    RedisPublisher(facility='foo', groups=['writers']).publish_message('to writers')
    RedisPublisher(facility='foo', groups=['chatters']).publish_message('to chatters')
    assert johns.receive_many(2) == ['to writers', 'to chatters']
    expect_only(marys, 'to chatters')
    anonymous.expect_silence(0.05)


def test_a_message_to_a_session_reaches_that_login_alone(
    server: Server, connect: Connect, john: HttpRequest
) -> None:
    elsewhere = logged_in_request(john.user)  # type: ignore[arg-type]
    here = connect(server, 'foo?subscribe-session', request=john)
    there = connect(server, 'foo?subscribe-session', request=elsewhere)
    sessions = [john.session.session_key]
    RedisPublisher(facility='foo', sessions=sessions).publish_message('here')
    RedisPublisher(facility='foo', sessions=[elsewhere.session]).publish_message('there')
    expect_only(here, 'here')
    expect_only(there, 'there')


@pytest.mark.parametrize('audience', ['broadcast', 'user', 'group', 'session'])
def test_what_a_websocket_sends_reaches_the_audience_it_chose(
    server: Server, connect: Connect, john: HttpRequest, audience: str
) -> None:
    receiver = connect(server, f'foo?subscribe-{audience}', request=john)
    sender = connect(server, f'foo?publish-{audience}', request=john)
    sender.send('hello')
    expect_only(receiver, 'hello')


@pytest.mark.parametrize('server', BOTH_LOOPS, indirect=True)
@pytest.mark.parametrize('audience', ['broadcast', 'user', 'group', 'session'])
def test_self_in_a_view_means_who_asks(
    server: Server, connect: Connect, john: HttpRequest, mary: HttpRequest, audience: str
) -> None:
    johns = connect(server, f'foo?subscribe-{audience}', request=john)
    marys = connect(server, f'foo?subscribe-{audience}', request=mary)
    post(server, '/publish/', request=john, facility='foo', to=audience, message='from john')
    expect_only(johns, 'from john')
    if audience in {'broadcast', 'group'}:
        expect_only(marys, 'from john')
    post(server, '/publish/', request=mary, facility='foo', to=audience, message='from mary')
    expect_only(marys, 'from mary')


def test_self_in_the_publisher_means_user_groups_and_session_of_its_request(
    gevent_server: Server, connect: Connect, john: HttpRequest, mary: HttpRequest
) -> None:
    addresses = ('foo?subscribe-user', 'foo?subscribe-group', 'foo?subscribe-session')
    johns = [connect(gevent_server, address, request=john) for address in addresses]
    marys = [connect(gevent_server, address, request=mary) for address in addresses]
    publisher = RedisPublisher(
        facility='foo', users=[SELF], groups=[SELF], sessions=[SELF], request=john
    )
    publisher.publish_message('to myself')
    RedisPublisher(facility='foo', users=['mary'], sessions=[mary.session]).publish_message('end')
    # Both of his groups.
    assert johns[0].receive() == 'to myself'
    assert johns[1].receive_many(2) == ['to myself'] * 2
    assert johns[2].receive() == 'to myself'
    assert marys[0].receive() == 'end'
    assert marys[1].receive() == 'to myself'
    assert marys[2].receive() == 'end'


@pytest.mark.parametrize('server', ['gevent', 'runserver'], indirect=True)
def test_self_of_nobody_publishes_nowhere(server: Server, redis_client: redis.Redis) -> None:
    for audience in ('user', 'group', 'session'):
        answer = post(server, '/publish/', facility='foo', to=audience, message='lost')
        assert answer == '{"channels": []}'
    assert stored_keys(redis_client) == []


def test_a_session_that_the_client_made_up_is_nobodys(
    gevent_server: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    websocket = connect(
        gevent_server,
        'foo?subscribe-session&subscribe-user',
        headers={'Cookie': 'sessionid=made-up'},
    )
    RedisPublisher(facility='foo', sessions=['made-up']).publish_message('leaked')
    websocket.expect_silence(0.05)
    assert redis_client.pubsub_channels('*:foo') == []


@pytest.mark.parametrize(
    'name', ['a:b', '100%', '%3A', 'Jürgen', '用户', 'a b', 'x' * 150], ids=ascii
)
def test_any_name_of_a_user_or_group_has_a_channel_of_its_own(
    gevent_server: Server, connect: Connect, redis_client: redis.Redis, name: str
) -> None:
    request = logged_in_request(make_user(name, groups=[name]))
    websocket = connect(gevent_server, 'foo?subscribe-user&subscribe-group', request=request)
    quoted = name.replace('%', '%25').replace(':', '%3A')
    expected = {f'user:{quoted}:foo'.encode(), f'group:{quoted}:foo'.encode()}
    assert set(redis_client.pubsub_channels('*:foo')) == expected
    RedisPublisher(facility='foo', users=[name]).publish_message('to the user')
    RedisPublisher(facility='foo', groups=[name]).publish_message('to the group')
    assert websocket.receive_many(2) == ['to the user', 'to the group']


def test_a_name_cannot_reach_into_anothers_channel(
    gevent_server: Server, connect: Connect, john: HttpRequest
) -> None:
    # Unquoted, the user `john:a` on `b` and the user `john` on `a:b` would share a channel.
    request = logged_in_request(make_user('john:a'))
    intruder = connect(gevent_server, 'b?subscribe-user', request=request)
    rightful = connect(gevent_server, 'a:b?subscribe-user', request=john)
    RedisPublisher(facility='a:b', users=['john']).publish_message('for john')
    assert rightful.receive() == 'for john'
    intruder.expect_silence(0.05)


def test_plain_redis_commands_publish_and_read(
    server: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    redis_client.publish('broadcast:foo', 'hi')
    assert websocket.receive() == 'hi'
    websocket.send('hello')
    assert websocket.receive() == 'hello'
    assert redis_client.get('broadcast:foo') == b'hello'

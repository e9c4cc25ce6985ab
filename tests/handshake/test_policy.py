"""The policy of a handshake: who may open which websocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.policy import (
    Admission,
    admit,
    asks_only_who,
    authorise,
    may_block,
    process_request,
    requested_options,
)
from ws4redis.hub.identity import ANONYMOUS
from ws4redis.publishing.broker import current_broker
from ws4redis.publishing.identity import regrouped_key
from ws4redis.settings.facilities import GRANTS
from ws4redis.subscriber import RedisSubscriber

pytestmark = pytest.mark.django_db


def handshake(
    query: str = 'subscribe-broadcast', *, login: HttpRequest | None = None, **headers: str
) -> HttpRequest:
    request = RequestFactory(headers=headers or None).get(f'/ws/foo?{query}')
    if login is not None:
        request.COOKIES['sessionid'] = str(login.session.session_key)
    return request


def channels_of(admission: Admission) -> tuple[set[str], set[str]]:
    subscriber = admission.subscriber
    return set(subscriber._subscription.names), subscriber._publishers


def refusal(request: HttpRequest) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        admit(request)
    return caught.value


def test_the_options_are_granted_and_echo_is_told() -> None:
    admission = admit(handshake('subscribe-broadcast&publish-broadcast&echo'))
    assert channels_of(admission) == ({'broadcast:foo'}, {'broadcast:foo'})
    assert admission.echo
    assert not admit(handshake('subscribe-broadcast')).echo
    assert type(admission.subscriber) is RedisSubscriber


def test_the_session_cookie_tells_user_and_session() -> None:
    login = logged_in_request(make_user('john', groups=['x']))
    admission = admit(handshake('subscribe=user,group,session', login=login))
    key = login.session.session_key
    assert channels_of(admission)[0] == {'user:john:foo', 'group:x:foo', f'session:{key}:foo'}


def test_a_session_that_does_not_exist_names_no_channel() -> None:
    request = handshake('subscribe=user,group,session&publish-session')
    request.COOKIES['sessionid'] = 'x' * 32
    assert channels_of(admit(request)) == (set(), set())


def test_a_channel_that_the_callback_adds_needs_a_session_that_exists() -> None:
    request = handshake('subscribe=broadcast')
    request.COOKIES['sessionid'] = 'x' * 32
    with override_settings(
        WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: ['subscribe-session']
    ):
        assert channels_of(admit(request)) == (set(), set())


def test_an_expired_session_names_no_channel() -> None:
    login = logged_in_request(make_user('john'))
    login.session.set_expiry(-10)
    login.session.save()
    assert channels_of(admit(handshake('subscribe=user,session', login=login))) == (set(), set())


def test_user_and_session_are_asked_for_only_when_something_looks_at_them(
    django_assert_num_queries: Any,
) -> None:
    login = logged_in_request(make_user('john'))
    request = handshake('subscribe-broadcast', login=login)
    with django_assert_num_queries(0):
        process_request(request)
        admit(handshake('subscribe-broadcast', login=login))
    with django_assert_num_queries(2):
        assert request.user.username == 'john'


def test_the_groups_of_the_login_need_no_database_beyond_user_and_session(
    django_assert_num_queries: Any, redis_server: RedisServer
) -> None:
    login = logged_in_request(make_user('john', groups=['x', 'y']))
    with django_assert_num_queries(2):
        admit(handshake('subscribe=user,group,session', login=login))


def test_groups_that_have_changed_since_the_login_are_looked_up(
    django_assert_num_queries: Any, redis_server: RedisServer
) -> None:
    john = make_user('john', groups=['x', 'y'])
    login = logged_in_request(john)
    john.groups.remove(Group.objects.get(name='x'))
    current_broker().mark([regrouped_key('john')], 60)
    with django_assert_num_queries(3):
        admission = admit(handshake('subscribe=group', login=login))
    assert channels_of(admission)[0] == {'group:y:foo'}


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (PermissionDenied('secret'), 403),
        (SuspiciousOperation('secret'), 400),
        (HandshakeError(429, 'Slow down.'), 429),
        (RuntimeError('secret'), 500),
        (KeyError('secret'), 500),
    ],
)
@pytest.mark.parametrize('setting', ['WS4REDIS_ALLOWED_CHANNELS', 'WS4REDIS_PROCESS_REQUEST'])
def test_what_a_callback_raises_decides_the_answer_and_stays_secret(
    caplog: pytest.LogCaptureFixture, setting: str, error: Exception, status: int
) -> None:
    def callback(*args: object) -> None:
        raise error

    with override_settings(**{setting: callback}):
        answer = refusal(handshake())
    assert answer.status == status
    assert 'secret' not in answer.body
    assert ('Traceback' in caplog.text) is (status == 500)


def test_a_foreign_origin_is_refused_before_any_callback_runs() -> None:
    called: list[object] = []
    with override_settings(WS4REDIS_PROCESS_REQUEST=called.append):
        assert refusal(handshake(origin='http://evil.example')).status == 403
        with pytest.raises(HandshakeError):
            authorise(handshake(origin='http://evil.example'))
    assert called == []


def test_a_foreign_host_is_refused() -> None:
    assert refusal(handshake(host='evil.example')).status == 400


def test_process_request_replaces_the_session() -> None:
    def by_token(request: HttpRequest) -> None:
        request.user = User(username=request.headers['token'])

    with override_settings(WS4REDIS_PROCESS_REQUEST=by_token):
        admission = admit(handshake('subscribe=user,session', token='jane'))
    assert channels_of(admission)[0] == {'user:jane:foo'}


def test_process_request_need_not_set_a_user() -> None:
    with override_settings(WS4REDIS_PROCESS_REQUEST=lambda request: None):
        admission = admit(handshake('subscribe=user,group,session,broadcast'))
    assert channels_of(admission)[0] == {'broadcast:foo'}


@pytest.mark.parametrize(
    ('granted', 'channels'),
    [
        (['subscribe-broadcast'], {'broadcast:foo'}),
        (('subscribe-broadcast', 'subscribe-user'), {'broadcast:foo'}),
        ({'subscribe-broadcast'}, {'broadcast:foo'}),
        ([], set()),
        (None, set()),
        (['no such option'], set()),
    ],
)
def test_allowed_channels_returns_any_iterable(granted: Any, channels: set[str]) -> None:
    with override_settings(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: granted):
        assert channels_of(admit(handshake('subscribe-broadcast')))[0] == channels


def test_allowed_channels_is_given_request_and_options_that_the_subscriber_lists() -> None:
    seen: list[Any] = []

    def allowed(request: HttpRequest, channels: list[str]) -> list[str]:
        seen.append((request.path_info, isinstance(request.user, AnonymousUser), channels))
        return channels

    with override_settings(WS4REDIS_ALLOWED_CHANNELS=allowed):
        admit(handshake('SUBSCRIBE=broadcast&publish-user&echo&unknown&subscribe-unknown'))
    [(path, _, channels)] = seen
    assert path == '/ws/foo'
    assert channels == ['subscribe-broadcast', 'publish-user']


class ListensOnly(RedisSubscriber):
    subscription_channels = ['subscribe-broadcast']
    publish_channels = []


def test_options_that_the_subscriber_class_does_not_list_are_ignored() -> None:
    path = f'{__name__}.ListensOnly'
    with override_settings(WS4REDIS_SUBSCRIBER=ListensOnly):
        admission = admit(handshake('subscribe=broadcast,session&publish-broadcast'))
    assert isinstance(admission.subscriber, ListensOnly), path
    assert channels_of(admission) == ({'broadcast:foo'}, set())


class Released(RedisSubscriber):
    releases = 0

    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        raise PermissionDenied

    def release(self) -> None:
        Released.releases += 1


@override_settings(WS4REDIS_SUBSCRIBER=Released)
def test_a_subscriber_that_refuses_is_released() -> None:
    Released.releases = 0
    assert refusal(handshake()).status == 403
    assert Released.releases == 1


def test_the_subscriber_is_given_the_shared_client(redis_client: redis.Redis) -> None:
    admission = admit(handshake())
    redis_client.set('name', 'value')
    assert admission.subscriber._connection.get('name') == b'value'


def test_the_user_is_named_only_where_there_is_a_limit_per_user() -> None:
    login = logged_in_request(make_user('john'))
    assert admit(handshake(login=login)).user is None
    with override_settings(WS4REDIS_MAX_CONNECTIONS_PER_USER=5):
        assert admit(handshake(login=login)).user == 'john'
        assert admit(handshake()).user is None


def test_who_subscribes_is_found_out_where_others_see_who_is_there() -> None:
    login = logged_in_request(make_user('john'))
    assert admit(handshake(login=login)).identity.user is None
    with override_settings(WS4REDIS_FACILITIES={'foo': {'PRESENCE': True}}):
        assert admit(handshake(login=login)).identity.user == 'john'
        assert admit(handshake('', login=login)).identity.user is None


def may_all(request: HttpRequest, facility: str, audience: str) -> bool:
    return True


def allow_all(request: HttpRequest, channels: list[str]) -> list[str]:
    return channels


@pytest.mark.parametrize(
    ('query', 'settings', 'blocks'),
    [
        ('subscribe-broadcast&publish-broadcast&echo', {}, False),
        ('', {}, False),
        ('subscribe-user', {}, True),
        ('SUBSCRIBE=Group', {}, True),
        ('publish-session', {}, True),
        ('subscribe-broadcast', {'WS4REDIS_ALLOWED_CHANNELS': allow_all}, True),
        ('subscribe-broadcast', {'WS4REDIS_PROCESS_REQUEST': process_request}, True),
        ('subscribe-broadcast', {'WS4REDIS_SUBSCRIBER': ListensOnly}, True),
        ('subscribe-broadcast', {'WS4REDIS_MAX_CONNECTIONS_PER_USER': 5}, True),
        ('subscribe-broadcast', {'WS4REDIS_FACILITIES': {'foo': {'PRESENCE': True}}}, True),
        ('publish-broadcast', {'WS4REDIS_FACILITIES': {'foo': {'PRESENCE': True}}}, False),
    ],
)
def test_only_an_anonymous_broadcast_with_stock_settings_cannot_block(
    query: str, settings: dict[str, Any], blocks: bool
) -> None:
    with override_settings(**settings):
        assert may_block(handshake(query)) is blocks


@pytest.mark.parametrize('grant', GRANTS)
def test_nobody_is_looked_up_where_it_cannot_block(
    grant: str, django_assert_num_queries: Callable[[int], Any]
) -> None:
    john = logged_in_request(make_user('john'))
    request = handshake('subscribe-broadcast&publish-broadcast', login=john)
    facilities = {'foo': {'SUBSCRIBE': grant, 'PUBLISH': grant}}
    with override_settings(WS4REDIS_FACILITIES=facilities):
        if grant in ('authenticated', 'staff'):
            assert may_block(request)
            assert admit(request).identity.user == 'john'
        else:
            assert not may_block(request)
            with django_assert_num_queries(0):
                # Others get what he gets, so it must not be in his name.
                assert admit(request).identity is ANONYMOUS


@pytest.mark.parametrize(
    ('query', 'settings', 'asks_no_more'),
    [
        ('subscribe-user', {}, True),
        ('subscribe-session&publish-user&echo', {}, True),
        ('subscribe-user', {'WS4REDIS_MAX_CONNECTIONS_PER_USER': 5}, True),
        ('subscribe-broadcast', {'WS4REDIS_FACILITIES': {'foo': {'PRESENCE': True}}}, True),
        ('SUBSCRIBE=Group', {}, False),
        ('subscribe-user', {'WS4REDIS_ALLOWED_CHANNELS': allow_all}, False),
        ('subscribe-user', {'WS4REDIS_PROCESS_REQUEST': process_request}, False),
        ('subscribe-user', {'WS4REDIS_SUBSCRIBER': ListensOnly}, False),
        ('subscribe-user', {'WS4REDIS_FACILITIES': {'foo': {'SUBSCRIBE': may_all}}}, False),
    ],
)
def test_code_of_the_project_and_groups_are_more_than_session_and_user(
    query: str, settings: dict[str, Any], *, asks_no_more: bool
) -> None:
    with override_settings(**settings):
        assert asks_only_who(handshake(query)) is asks_no_more


def test_options_are_read_in_either_spelling_and_any_case() -> None:
    request = handshake('Subscribe-Broadcast&PUBLISH=user,Group&echo')
    assert requested_options(request) == [
        'subscribe-broadcast',
        'publish-user',
        'publish-group',
        'echo',
    ]

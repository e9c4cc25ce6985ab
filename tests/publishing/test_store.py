from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.contrib.auth.models import AnonymousUser, Group
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory, override_settings
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

from tests.django_requests import anonymous_request, logged_in_request, make_user
from tests.programs import RedisServer
from ws4redis.redis_store import SELF, RedisMessage, RedisStore

# RedisMessage


@pytest.mark.parametrize('value', ['grüße', 'grüße'.encode(), bytearray('grüße'.encode())])
def test_a_message_is_the_bytes_of_what_it_is_built_from(value: Any) -> None:
    message = RedisMessage(value)
    assert isinstance(message, bytes)
    assert isinstance(message, RedisMessage)
    assert message == 'grüße'.encode()


def test_a_message_may_be_built_from_a_memoryview_and_from_a_message() -> None:
    assert RedisMessage(memoryview(b'abc')) == b'abc'
    assert type(RedisMessage(RedisMessage('abc'))) is RedisMessage


def test_an_empty_string_is_a_message() -> None:
    assert RedisMessage('') == b''
    assert RedisMessage(b'') is not None


@override_settings(WS4REDIS_HEARTBEAT='--heart é beat--')
@pytest.mark.parametrize('kind', [str, bytes, bytearray])
def test_the_heartbeat_is_no_message(kind: type) -> None:
    text = '--heart é beat--'
    assert RedisMessage(text if kind is str else kind(text.encode())) is None


def test_without_a_heartbeat_every_string_is_a_message() -> None:
    with override_settings(WS4REDIS_HEARTBEAT=None):
        assert RedisMessage('None') == b'None'


def test_a_message_is_read_out_of_a_reply_of_pubsub() -> None:
    assert RedisMessage([b'message', b'broadcast:foo', b'hi']) == b'hi'
    assert RedisMessage((b'message', b'broadcast:foo', b'hi')) == b'hi'
    assert RedisMessage(['message', 'broadcast:foo', 'hi']) == b'hi'
    assert RedisMessage([b'pmessage', b'broadcast:*', b'broadcast:foo', b'hi']) == b'hi'


@override_settings(WS4REDIS_HEARTBEAT='--heartbeat--')
def test_a_heartbeat_in_a_reply_of_pubsub_is_no_message() -> None:
    assert RedisMessage([b'message', b'broadcast:foo', b'--heartbeat--']) is None


@pytest.mark.parametrize(
    'value',
    [
        None,
        0,
        1.5,
        True,
        {'a': 1},
        [],
        [b'message'],
        [b'subscribe', b'broadcast:foo', 1],
        [b'unsubscribe', None, 0],
        [b'message', b'broadcast:foo', None],
        [b'message', b'broadcast:foo', 1],
        object(),
    ],
)
def test_what_carries_no_message_is_none(value: object) -> None:
    assert RedisMessage(value) is None


def test_a_message_survives_copying_and_pickling() -> None:
    message = RedisMessage('abc')
    for twin in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert type(twin) is RedisMessage
        assert twin == b'abc'


def test_self_stays_the_one_object() -> None:
    assert copy.deepcopy([SELF])[0] is SELF
    assert pickle.loads(pickle.dumps(SELF)) is SELF
    assert repr(SELF) == 'SELF'


# The prefix


@pytest.mark.parametrize(('setting', 'prefix'), [('', ''), ('site', 'site:')])
def test_the_prefix_comes_with_its_colon(setting: str, prefix: str) -> None:
    with override_settings(WS4REDIS_PREFIX=setting):
        assert RedisStore().get_prefix() == prefix
        assert RedisStore()._get_message_channels(facility='foo', broadcast=True) == [
            f'{prefix}broadcast:foo'
        ]


# Channels


def channels(request: Any = None, **audiences: Any) -> list[str]:
    return RedisStore()._get_message_channels(request=request, facility='foo', **audiences)


def test_each_audience_has_its_channels() -> None:
    assert channels() == []
    assert channels(broadcast=True) == ['broadcast:foo']
    assert channels(users=['john', 'mary']) == ['user:john:foo', 'user:mary:foo']
    assert channels(groups=('chatters',)) == ['group:chatters:foo']
    assert channels(sessions=['abc']) == ['session:abc:foo']


def test_without_a_facility_the_channels_are_templates() -> None:
    (template,) = RedisStore()._get_message_channels(broadcast=True)
    assert template.format(facility='foo') == 'broadcast:foo'


def test_names_are_quoted() -> None:
    assert channels(users=['a:b%']) == ['user:a%3Ab%25:foo']


@pytest.mark.parametrize('audience', ['groups', 'users', 'sessions'])
@pytest.mark.parametrize(
    'value', ['john', SELF, True, None, 7, {'john'}, {'john': 1}, iter(['john'])]
)
def test_anything_but_a_list_or_a_tuple_is_refused(audience: str, value: object) -> None:
    with pytest.raises(ValueError, match=f'{audience} must be a list or a tuple'):
        channels(**{audience: value})


@pytest.mark.parametrize('audience', ['groups', 'users', 'sessions'])
@pytest.mark.parametrize('item', [None, 7, b'john', ['john'], object()])
def test_an_item_that_is_no_name_is_refused(audience: str, item: object) -> None:
    with pytest.raises(ValueError, match=f'{audience} must hold names or SELF'):
        channels(**{audience: [item]})


@pytest.mark.parametrize('audience', ['groups', 'users', 'sessions'])
def test_self_without_a_request_is_refused(audience: str) -> None:
    with pytest.raises(ValueError, match='SELF, which needs a request'):
        channels(**{audience: [SELF]})


def test_a_lazy_string_is_a_name() -> None:
    assert channels(groups=[gettext_lazy('chatters')]) == ['group:chatters:foo']


@pytest.mark.django_db
def test_the_objects_themselves_may_stand_for_their_names() -> None:
    john = make_user('john', groups=['chatters'])
    group = Group.objects.get()
    session = SessionStore()
    session.create()
    assert channels(users=[john, SimpleLazyObject(lambda: john)]) == ['user:john:foo']
    assert channels(groups=[group]) == ['group:chatters:foo']
    assert channels(sessions=[session]) == [f'session:{session.session_key}:foo']


# SELF


@pytest.mark.django_db
def test_self_among_users_is_the_user_who_is_logged_in() -> None:
    request = logged_in_request(make_user('jürgen:x'))
    assert channels(request, users=[SELF]) == ['user:jürgen%3Ax:foo']
    assert channels(request, users=['mary', SELF]) == ['user:mary:foo', 'user:jürgen%3Ax:foo']


@pytest.mark.django_db
def test_self_among_groups_means_all_groups_of_the_user() -> None:
    request = logged_in_request(make_user('john', groups=['b', 'a']))
    assert channels(request, groups=[SELF]) == ['group:a:foo', 'group:b:foo']


@pytest.mark.django_db
def test_self_among_sessions_is_the_session_of_the_request() -> None:
    request = logged_in_request(make_user('john'))
    key = request.session.session_key
    assert channels(request, sessions=[SELF]) == [f'session:{key}:foo']


@pytest.mark.parametrize('audience', ['groups', 'users', 'sessions'])
@pytest.mark.parametrize(
    'request_',
    [
        anonymous_request(),
        RequestFactory().get('/'),
        SimpleNamespace(user=None, session=None),
        SimpleNamespace(user=AnonymousUser(), session={}),
    ],
    ids=['anonymous', 'without middleware', 'None', 'session that is a dict'],
)
def test_self_with_nobody_logged_in_and_no_session_adds_no_channel(
    audience: str, request_: Any
) -> None:
    assert channels(request_, broadcast=True, **{audience: [SELF]}) == ['broadcast:foo']


@pytest.mark.django_db
def test_groups_come_from_the_session_of_the_login_without_a_query(
    django_assert_num_queries: Any,
) -> None:
    request = logged_in_request(make_user('john', groups=['chatters']))
    with django_assert_num_queries(0):
        assert channels(request, groups=[SELF], users=[SELF], sessions=[SELF]) == [
            f'session:{request.session.session_key}:foo',
            'user:john:foo',
            'group:chatters:foo',
        ]


@pytest.mark.django_db
def test_groups_come_from_the_database_where_the_session_does_not_tell(
    django_assert_num_queries: Any,
) -> None:
    request = anonymous_request()
    request.user = make_user('john', groups=['chatters'])
    with django_assert_num_queries(1):
        assert channels(request, groups=[SELF]) == ['group:chatters:foo']


@pytest.mark.django_db
def test_the_session_of_another_user_does_not_tell_the_groups() -> None:
    request = logged_in_request(make_user('admin', groups=['admins']))
    request.user = make_user('john', groups=['chatters'])
    assert channels(request, groups=[SELF]) == ['group:chatters:foo']


def test_a_user_of_a_model_without_groups_has_none() -> None:
    user = SimpleNamespace(is_authenticated=True, get_username=lambda: 'john')
    request: Any = SimpleNamespace(user=user, session=None)
    assert channels(request, groups=[SELF], users=[SELF]) == ['user:john:foo']


# Publishing by whoever has a store


def test_a_subclass_publishes_under_names_of_its_own(redis_client: redis.Redis) -> None:
    class Store(RedisStore):
        def __init__(self) -> None:
            super().__init__()
            self._publishers |= {'room:7', b'room:8'}  # type: ignore[arg-type]

    Store().publish_message('hi')
    assert redis_client.mget('room:7', 'room:8') == [b'hi', b'hi']


def test_a_store_uses_the_connection_that_it_is_given(redis_server: RedisServer) -> None:
    with redis_server.client(db=5) as connection:
        store = RedisStore(connection)
        store._publishers = {'room:7'}
        store.publish_message('hi')
        assert connection.get('room:7') == b'hi'
    with redis_server.client() as elsewhere:
        assert elsewhere.get('room:7') is None

"""Who a request comes from, whatever kind of user the project has."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.db.models.manager import EmptyManager

from tests.django_requests import make_user
from ws4redis.handshake.policy import user_to_count
from ws4redis.publishing.identity import (
    group_names,
    groups_of,
    id_of_user,
    name_of_user,
    stamp_of,
    user_of,
    users_of,
)
from ws4redis.publishing.receivers import store_groups_in_session
from ws4redis.redis_store import SELF, RedisStore

pytestmark = pytest.mark.django_db


class Titled:
    """Be a group without a name."""

    title = 'chatters'


class TokenUser:
    """Be what a token says, and no model."""

    is_authenticated = True
    username = 'john'


def request_of(user: object) -> Any:
    return SimpleNamespace(user=user, session=SessionStore())


@pytest.mark.parametrize(
    ('groups', 'names'),
    [
        (None, []),
        (['writers', 'readers'], ['readers', 'writers']),
        (('writers',), ['writers']),
        ({'writers'}, ['writers']),
        ([SimpleNamespace(name='writers'), Titled(), 7, None], ['writers']),
        ({'writers': True}, []),
        ('writers', []),
        (7, []),
        (EmptyManager(Group), []),
        # Models without a field `name`, with and without such a property.
        (Permission.objects, None),
    ],
)
def test_groups_of_any_kind_are_named_where_they_have_names(
    groups: Any, names: list[str] | None
) -> None:
    user = SimpleNamespace(is_authenticated=True, username='john', groups=groups)
    expected = sorted(set(Permission.objects.values_list('name', flat=True)))
    assert sorted(set(group_names(user))) == (expected if names is None else names)


def test_a_relation_to_something_without_a_name_names_no_group() -> None:
    from django.contrib.sessions.models import Session

    Session.objects.create(session_key='x', session_data='', expire_date='2040-01-01T00:00Z')
    assert group_names(SimpleNamespace(groups=Session.objects)) == []


def test_a_user_that_is_no_model_has_channels() -> None:
    request = request_of(TokenUser())
    channels = RedisStore()._get_message_channels(
        request, 'foo', users=[SELF], groups=[SELF], sessions=[SELF]
    )
    assert 'user:john:foo' in channels
    assert users_of(request) == ['john']
    assert groups_of(request) == []
    channels = RedisStore()._get_message_channels(None, 'foo', users=[TokenUser()])
    assert channels == ['user:john:foo']


@pytest.mark.parametrize(
    'user',
    [
        None,
        object(),
        SimpleNamespace(username='john'),
        SimpleNamespace(username='john', is_authenticated=False),
        SimpleNamespace(username='john', is_authenticated=lambda: False),
    ],
)
def test_who_does_not_say_to_be_logged_in_is_nobody(user: object) -> None:
    request = request_of(user)
    assert user_of(request) is None
    assert users_of(request) == groups_of(request) == []


def test_a_user_without_any_name_has_no_channel(settings: Any) -> None:
    settings.WS4REDIS_MAX_CONNECTIONS_PER_USER = 5
    request = request_of(SimpleNamespace(is_authenticated=True))
    assert users_of(request) == []
    assert user_to_count(request) is None


class Broken:
    """Raise where groups are asked for."""

    @property
    def groups(self) -> Any:
        raise RuntimeError('no such service')


@pytest.mark.parametrize('groups', [['writers'], Permission.objects, None])
def test_a_login_stores_groups_of_any_kind(groups: Any) -> None:
    request = request_of(None)
    user = SimpleNamespace(groups=groups)
    store_groups_in_session(sender=type(user), user=user, request=request)
    assert request.session['ws4redis:memberof'] == group_names(user)


def test_a_login_never_fails_for_its_groups(caplog: pytest.LogCaptureFixture) -> None:
    request = request_of(None)
    with caplog.at_level(logging.ERROR, 'ws4redis'):
        store_groups_in_session(sender=Broken, user=Broken(), request=request)
    assert 'ws4redis:memberof' not in request.session
    assert 'no such service' in caplog.text


def test_groups_of_a_login_are_those_of_the_session() -> None:
    user = make_user('mary', groups=['chatters'])
    request = request_of(user)
    request.session['_auth_user_id'] = str(user.pk)
    request.session['ws4redis:memberof'] = ['kept']
    assert groups_of(request) == ['kept']


def test_a_user_who_is_in_no_database_has_a_name_and_nothing_else() -> None:
    user = User(username='jane')
    assert name_of_user(user) == 'jane'
    assert (id_of_user(user), stamp_of(user), group_names(user)) == (None, None, [])

"""Users who are read together: by one query, and never one whom Django would not let in."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, get_user, load_backend
from django.contrib.auth.backends import AllowAllUsersModelBackend, ModelBackend
from django.contrib.auth.models import User, UserManager
from django.db import models
from django.test import RequestFactory, override_settings

from tests.django_requests import logged_in_request, make_user
from ws4redis.handshake import sessions, users
from ws4redis.handshake.policy import process_request
from ws4redis.handshake.sessions import READ_SESSION, Read, session_of
from ws4redis.handshake.users import read_users

pytestmark = pytest.mark.django_db

MODEL_BACKEND = 'django.contrib.auth.backends.ModelBackend'
HERE = 'tests.handshake.test_users'


class Careless(AllowAllUsersModelBackend):
    """Lets those in who are not active; looks them up as Django does."""


class Elsewhere(ModelBackend):
    """Looks users up by itself."""

    def get_user(self, user_id: Any) -> User | None:
        user: User | None = super().get_user(user_id)
        return user if user is not None and user.username != 'banned' else None


class Replaced(ModelBackend):
    """Has another look-up for each instance."""

    def __init__(self) -> None:
        vars(self)['get_user'] = lambda user_id: None


class NoModelBackend:
    """Is none of Django's, though its look-up has the same name."""

    get_user = ModelBackend.get_user

    def user_can_authenticate(self, user: Any) -> bool:
        return True


class Choosy(UserManager[User]):
    """Hides some users from those who ask for one."""

    def get(self, *args: Any, **kwargs: Any) -> User:
        raise User.DoesNotExist


class ChoosyQuerySet(models.QuerySet[User]):
    def get(self, *args: Any, **kwargs: Any) -> User:
        raise User.DoesNotExist


def session_for(user: User, **changes: Any) -> dict[str, Any]:
    """Return the data of the session that a login of the user has made."""
    return {**dict(logged_in_request(user).session.items()), **changes}


def taken(data: dict[str, Any]) -> Any:
    """Return the user of a session whom nobody has to be asked for again."""
    (read,) = read_users([data])
    return users.vouched_user(read, data)


def handshake_with(data: dict[str, Any], *, is_read: bool = True) -> Any:
    """Return a handshake that was prepared as by default, whose session has some data."""
    store = import_module('django.contrib.sessions.backends.db').SessionStore()
    store.update(data)
    store.save()
    request: Any = RequestFactory().get('/ws/x')
    request.COOKIES['sessionid'] = store.session_key
    if is_read:
        (read,) = sessions.read_sessions([store.session_key])
        setattr(request, READ_SESSION, read)
    process_request(request)
    return request


def test_the_users_of_many_sessions_are_read_by_one_query(
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    known = [make_user(f'user{number}') for number in range(5)]
    data = [session_for(user) for user in known]
    with django_assert_num_queries(1):
        read = read_users([*data, None, {}])
    assert [one and one.user for one in read] == [*known, None, None]
    backend: Any = load_backend(MODEL_BACKEND)
    for one in read[:5]:
        assert one is not None
        as_ever = backend.get_user(one.user.pk)
        assert {**vars(one.user), '_state': None} == {**vars(as_ever), '_state': None}
        assert vars(one.user._state) == vars(as_ever._state)


def test_no_query_is_made_where_nobody_is_logged_in(
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    with django_assert_num_queries(0):
        assert read_users([None, {}, {'name': 'john'}]) == [None, None, None]


def test_each_session_of_a_user_gets_an_instance_of_its_own() -> None:
    data = session_for(make_user('john'))
    first, second, third = (one.user for one in read_users([data, data, data]) if one is not None)
    assert first == second == third
    assert len({id(first), id(second), id(third)}) == 3
    second.first_name = 'Changed'
    assert first.first_name == third.first_name == ''


def test_a_handshake_finds_its_user_read_when_something_looks_at_it(
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    john = make_user('john')
    request = handshake_with(session_for(john))
    with django_assert_num_queries(0):
        assert request.user == john
        assert request.user.is_authenticated
        assert request.session[SESSION_KEY] == str(john.pk)


def test_a_session_that_the_project_has_changed_meanwhile_has_another_user() -> None:
    john, mary = make_user('john'), make_user('mary')
    request = handshake_with(session_for(john))
    request.session.update(session_for(mary))
    assert request.user == mary
    # Even if nothing else tells them apart.
    User.objects.update(password=john.password)
    request = handshake_with(session_for(john))
    request.session[SESSION_KEY] = str(mary.pk)
    assert request.user == mary
    request = handshake_with(session_for(john))
    request.session.flush()
    assert not request.user.is_authenticated


@pytest.mark.parametrize(
    'changes',
    [
        {'_auth_user_hash': 'that of another password'},
        {'_auth_user_hash': ''},
        {'_auth_user_hash': None},
        {'_auth_user_backend': 'tests.handshake.test_users.Careless'},
        {'_auth_user_backend': 'no.such.Backend'},
        {'_auth_user_backend': None},
        {'_auth_user_backend': ['no name']},
        {'_auth_user_id': '4711'},
        {'_auth_user_id': 'no number'},
        {'_auth_user_id': None},
        {'_auth_user_id': ['1']},
    ],
)
def test_who_is_not_vouched_for_is_not_let_in(changes: dict[str, Any]) -> None:
    assert taken(session_for(make_user('john'), **changes)) is None


def test_a_backend_that_the_settings_do_not_name_is_not_asked() -> None:
    data = session_for(make_user('john'))
    (read,) = read_users([data])
    with override_settings(AUTHENTICATION_BACKENDS=[f'{HERE}.Careless']):
        assert read_users([data]) == [None]
        assert users.vouched_user(read, data) is None


def test_what_was_read_by_way_of_another_backend_does_not_count() -> None:
    data = session_for(make_user('john'))
    (read,) = read_users([data])
    data['_auth_user_backend'] = f'{HERE}.Elsewhere'
    assert users.vouched_user(read, data) is None


def test_a_user_without_a_hash_is_not_vouched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(User, 'get_session_auth_hash', lambda user: '')
    assert taken(session_for(make_user('john'))) is None


def test_neither_is_who_has_been_deactivated_or_deleted_unless_the_backend_lets_him() -> None:
    john = make_user('john')
    data = session_for(john)
    User.objects.update(is_active=False)
    assert taken(data) is None
    careless = f'{HERE}.Careless'
    with override_settings(AUTHENTICATION_BACKENDS=[MODEL_BACKEND, careless]):
        assert taken(data) is None
        assert taken({**data, '_auth_user_backend': careless}) == john
    User.objects.all().delete()
    assert taken(data) is None


@pytest.mark.parametrize('backend', ['Elsewhere', 'Replaced', 'NoModelBackend'])
def test_a_backend_that_looks_users_up_by_itself_is_asked_for_each(backend: str) -> None:
    path = f'{HERE}.{backend}'
    data = session_for(make_user('banned'), _auth_user_backend=path)
    with override_settings(AUTHENTICATION_BACKENDS=[path]):
        assert read_users([data]) == [None]


@pytest.mark.parametrize(
    'manager', [Choosy(), UserManager.from_queryset(ChoosyQuerySet)()], ids=['manager', 'query set']
)
def test_so_is_a_manager_with_ideas_of_its_own(
    manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = session_for(make_user('john'))
    manager.model = User
    monkeypatch.setitem(vars(User._meta), 'default_manager', manager)
    assert User._default_manager is manager
    assert read_users([data]) == [None]


def test_a_session_by_a_former_secret_key_gets_a_new_key_and_hash_as_in_a_request() -> None:
    john = make_user('john')
    data = session_for(john)
    with override_settings(SECRET_KEY='another', SECRET_KEY_FALLBACKS=['for the tests alone']):
        assert taken(data) is None
        request = handshake_with(data)
        key = request.session.session_key
        assert request.user == john
        assert request.session.session_key != key
        assert request.session['_auth_user_hash'] == john.get_session_auth_hash()
    with override_settings(SECRET_KEY='another'):
        request = handshake_with(data)
        assert not request.user.is_authenticated
        assert request.session.is_empty()


@pytest.mark.parametrize('is_read', [True, False])
@pytest.mark.parametrize(
    ('changes', 'is_let_in'),
    [
        ({}, True),
        ({'_auth_user_hash': 'that of another password'}, False),
        ({'_auth_user_backend': 'no.such.Backend'}, False),
        ({'_auth_user_id': '4711'}, False),
    ],
)
def test_the_answer_is_that_of_django(
    changes: dict[str, Any], *, is_let_in: bool, is_read: bool
) -> None:
    request = handshake_with(session_for(make_user('john'), **changes), is_read=is_read)
    assert request.user.is_authenticated is is_let_in
    request.session = session_of(request, request.session.session_key)
    assert get_user(request).is_authenticated is is_let_in


def test_users_who_cannot_be_read_do_not_keep_sessions_from_being_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(sessions: Any) -> Any:
        raise ConnectionError('the database is away')

    john = make_user('john')
    data = session_for(john)
    monkeypatch.setattr(sessions, 'read_users', fail)
    request = handshake_with(data)
    read: Read = getattr(request, READ_SESSION)
    assert read.data == data
    assert read.user is None
    assert request.user == john

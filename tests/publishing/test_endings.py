"""Django's signals, and what they tell those who hold connections."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.contrib.auth import logout
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.db import transaction
from django.test import override_settings

from tests.django_requests import logged_in_request, make_user
from ws4redis.broker.control import digest_of_session
from ws4redis.control import adisconnect, aunsubscribe, disconnect, unsubscribe
from ws4redis.publishing.endings import tell_of_ended_sessions
from ws4redis.publishing.identity import regrouped_key
from ws4redis.test.memory import MemoryBroker, publish_in_memory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    with publish_in_memory() as broker:
        yield broker


def told(broker: MemoryBroker) -> list[tuple[str, str | None, int]]:
    told = [(str(message.do), message.user, message.code) for message in broker.told]
    broker.told.clear()
    return told


def test_a_logout_ends_the_session_and_only_that(broker: MemoryBroker) -> None:
    request = logged_in_request(make_user('mary'))
    digest = digest_of_session(str(request.session.session_key))
    told(broker)
    logout(request)
    assert {message.session for message in broker.told} == {digest}
    assert told(broker) == [('disconnect', None, 4501), ('disconnect', None, 4001)]


def test_a_login_is_no_reason_to_look_the_user_up(broker: MemoryBroker) -> None:
    mary = make_user('mary')
    told(broker)
    logged_in_request(mary)
    assert [do for do, user, _ in told(broker) if user is not None] == []


def test_what_is_rolled_back_is_not_told(broker: MemoryBroker) -> None:
    mary = make_user('mary')
    told(broker)
    with transaction.atomic():
        mary.save()
        assert told(broker) == []
    assert told(broker) == [('check', 'mary', 0)]
    with pytest.raises(RuntimeError), transaction.atomic():
        mary.delete()
        raise RuntimeError
    assert told(broker) == []


def test_changes_of_groups_are_told_whichever_side_makes_them(broker: MemoryBroker) -> None:
    mary, john = make_user('mary'), make_user('john')
    group = Group.objects.create(name='staff')

    def users() -> list[str | None]:
        found = sorted(str(user) for do, user, _ in told(broker) if do == 'check')
        return list(found)

    users()
    mary.groups.add(group)
    assert users() == ['mary']
    group.user_set.add(john)
    assert users() == ['john']
    mary.groups.remove(group)
    assert users() == ['mary']
    mary.groups.set([group])
    assert users() == ['mary']
    mary.groups.clear()
    assert users() == ['mary']
    group.name = 'crew'
    group.save()
    assert users() == ['john']
    group.user_set.clear()
    assert users() == ['john']
    group.user_set.add(john, mary)
    assert users() == ['john', 'mary']
    group.delete()
    assert users() == ['john', 'mary']
    assert broker.fetch([regrouped_key('mary')]) == [b'1']


def test_sessions_of_any_store_tell_when_they_end(broker: MemoryBroker) -> None:
    with override_settings(SESSION_ENGINE='django.contrib.sessions.backends.cache'):
        tell_of_ended_sessions()
        # Twice makes no difference.
        tell_of_ended_sessions()
        session = CacheStore()
        session.create()
        key = str(session.session_key)
        told(broker)
        session.flush()
        assert [message.session for message in broker.told] == [digest_of_session(key)]
        told(broker)
        CacheStore.clear_expired()
        assert [do for do, _, _ in told(broker)] == ['check-sessions']


@pytest.mark.parametrize('error', [redis.ConnectionError('away'), RuntimeError('broken')])
def test_nothing_that_fails_here_fails_what_sent_the_signal(
    error: Exception,
    broker: MemoryBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(broker, 'tell', fail)
    monkeypatch.setattr(broker, 'mark', fail)
    request = logged_in_request(make_user('mary', groups=['staff']))
    with caplog.at_level(logging.CRITICAL, 'django'):
        request.user.save()
        logout(request)
        Group.objects.all().delete()
        make_user('john').delete()
    assert 'open connections were not told of a change' in caplog.text


def test_disconnecting_and_unsubscribing_say_whom_they_mean(broker: MemoryBroker) -> None:
    mary = make_user('mary')
    told(broker)
    disconnect(user=mary)
    (message,) = broker.told
    assert (message.user, message.user_id, message.code) == ('mary', str(mary.pk), 3503)
    broker.told.clear()
    unsubscribe('chat', user='mary')
    unsubscribe('chat', user='mary', group='staff')
    unsubscribe('chat', session='key')
    unsubscribe('chat', session='key', audience='broadcast')
    assert [message.channel for message in broker.told] == [
        'user:mary:chat',
        'group:staff:chat',
        'session:key:chat',
        'broadcast:chat',
    ]


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'user': ''},
        {'user': object()},
        {'session': object()},
        {'user': 'mary', 'code': 1005},
        {'user': 'mary', 'reason': 'x' * 124},
    ],
)
def test_whom_nobody_can_be_is_an_error_of_the_caller(
    broker: MemoryBroker, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        disconnect(**options)
    assert broker.told == []


def test_coroutines_have_their_own(broker: MemoryBroker) -> None:
    async_to_sync(_end_in_coroutines)()
    assert [str(message.do) for message in broker.told] == ['disconnect', 'unsubscribe']


async def _end_in_coroutines() -> None:
    await adisconnect(user='mary')
    await aunsubscribe('chat', user='mary')

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.contrib.auth.signals import user_logged_in
from django.core.signals import setting_changed
from django.test import Client, override_settings

from tests.django_requests import logged_in_request, make_user
from ws4redis.broker.connections import get_client
from ws4redis.receivers import store_groups_in_session

pytestmark = pytest.mark.django_db


def test_a_login_stores_the_names_of_the_users_groups_in_the_session() -> None:
    make_user('mary', groups=['chatters', 'ädmins: %'])
    client = Client()
    assert client.login(username='mary', password='secret')
    assert client.session['ws4redis:memberof'] == ['chatters', 'ädmins: %']


def test_a_user_without_groups_gets_an_empty_list() -> None:
    request = logged_in_request(make_user('mary'))
    assert request.session['ws4redis:memberof'] == []


def test_another_login_in_the_same_session_replaces_the_groups() -> None:
    mary, john = make_user('mary', groups=['chatters']), make_user('john', groups=['others'])
    client = Client()
    client.force_login(mary)
    client.force_login(john)
    assert client.session['ws4redis:memberof'] == ['others']


def test_a_logout_forgets_the_groups() -> None:
    client = Client()
    client.force_login(make_user('mary', groups=['chatters']))
    client.logout()
    assert 'ws4redis:memberof' not in client.session


def test_a_change_of_groups_counts_once_the_receiver_is_called_again() -> None:
    mary = make_user('mary', groups=['chatters'])
    request = logged_in_request(mary)
    mary.groups.add(Group.objects.create(name='admins'))
    assert request.session['ws4redis:memberof'] == ['chatters']
    store_groups_in_session(sender=None, user=mary, request=request)
    assert request.session['ws4redis:memberof'] == ['admins', 'chatters']


@pytest.mark.parametrize('request_', [None, SimpleNamespace(), SimpleNamespace(session=None)])
def test_a_login_without_a_session_is_no_error(request_: SimpleNamespace | None) -> None:
    mary = make_user('mary', groups=['chatters'])
    user_logged_in.send(sender=type(mary), user=mary, request=request_)


def test_a_user_of_a_model_without_groups_can_log_in() -> None:
    request: Any = SimpleNamespace(session={})
    store_groups_in_session(sender=None, user=SimpleNamespace(), request=request)
    assert request.session == {'ws4redis:memberof': []}


def test_receivers_are_connected_once_however_often_the_application_is_made_ready() -> None:
    from django.apps import apps

    apps.get_app_config('ws4redis').ready()
    signals = [user_logged_in, setting_changed]
    identities = [str(receiver[0][0]) for signal in signals for receiver in signal.receivers]
    assert [identity for identity in identities if identity.startswith('ws4redis.')] == [
        'ws4redis.store_groups_in_session',
        'ws4redis.follow_changed_setting',
    ]


def test_only_a_change_of_the_connection_drops_the_client() -> None:
    client = get_client()
    with override_settings(WS4REDIS_EXPIRE=7):
        assert get_client() is client
    with override_settings(WS4REDIS_CONNECTION={'port': 1}):
        assert get_client() is not client

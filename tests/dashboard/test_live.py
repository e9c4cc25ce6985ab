from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import redis
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.test import RequestFactory, override_settings

from tests.dashboard.snapshots import snapshot, tell
from tests.programs import RedisServer
from ws4redis.broker.control import control_keys
from ws4redis.broker.watchers import read_watchers
from ws4redis.dashboard import live, live_urls
from ws4redis.dashboard.permissions import PERMISSIONS
from ws4redis.presence import Presence
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db
VIEWS = [live.page, live.data, live.channel, live.who, live.answers, live.end, live.publish]
FORMS = (live.publish, live.end)
FACILITIES = {'chat/*': {'HISTORY_SIZE': 50, 'PRESENCE': True}}


def staff(*codenames: str, **fields: Any) -> User:
    user = User.objects.create_user('staff', **{'is_staff': True, **fields})
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def ask(view: Any, visitor: Any, **data: str) -> Any:
    factory = RequestFactory()
    request = factory.post('/', data) if view in FORMS else factory.get('/', data)
    request.user = visitor
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
    return view(request)


@pytest.fixture(autouse=True)
def _facilities(redis_server: RedisServer) -> Iterator[None]:
    with override_settings(WS4REDIS_FACILITIES=FACILITIES):
        yield


def test_the_permissions_are_there_after_migrate() -> None:
    found = Permission.objects.filter(content_type__app_label='ws4redis')
    assert {permission.codename for permission in found} == PERMISSIONS.keys()


@pytest.mark.parametrize('view', VIEWS, ids=lambda view: view.__name__)
@pytest.mark.parametrize(
    ('codenames', 'fields'),
    [
        ((), {}),
        (('change_live',), {}),
        (('view_live', 'change_live'), {'is_staff': False}),
        (('view_live', 'change_live'), {'is_active': False}),
    ],
)
def test_who_may_not_sees_nothing_and_can_do_nothing(
    view: Any, codenames: tuple[str, ...], fields: dict[str, Any], redis_client: redis.Redis
) -> None:
    with pytest.raises(PermissionDenied):
        ask(view, staff(*codenames, **fields), facility='news', message='x')


def test_these_are_all_urls_there_are() -> None:
    assert [pattern.callback for pattern in live_urls.urlpatterns] == VIEWS


@pytest.mark.parametrize('view', VIEWS[1:5], ids=lambda view: view.__name__)
def test_nothing_can_be_posted_to_what_only_shows(view: Any) -> None:
    request = RequestFactory().post('/', {'facility': 'x'})
    request.user = staff('view_live', 'change_live')
    assert view(request).status_code == 405


@pytest.mark.parametrize('view', FORMS, ids=lambda view: view.__name__)
def test_nothing_can_be_done_by_a_link(view: Any) -> None:
    request = RequestFactory().get('/', {'facility': 'x', 'message': 'x', 'user': 'mary'})
    request.user = staff('view_live', 'change_live')
    assert view(request).status_code == 405


def test_guests_are_asked_to_log_in_by_the_page_alone() -> None:
    assert ask(live.page, AnonymousUser()).status_code == 302
    for view in VIEWS[1:]:
        with pytest.raises(PermissionDenied):
            ask(view, AnonymousUser())


def test_who_may_look_may_not_send() -> None:
    user = staff('view_live')
    assert ask(live.data, user).status_code == 200
    for view in FORMS:
        with pytest.raises(PermissionDenied):
            ask(view, user, facility='news', message='x', user='mary')


def test_a_form_of_another_site_is_refused() -> None:
    request = RequestFactory(enforce_csrf_checks=True).post('/', {'facility': 'x', 'message': 'x'})
    request.user = staff('view_live', 'change_live')
    assert live.publish(request).status_code == 403


@pytest.mark.parametrize('view', VIEWS, ids=lambda view: view.__name__)
def test_other_methods_are_refused(view: Any) -> None:
    request = RequestFactory().put('/')
    request.user = staff('view_live', 'change_live')
    assert view(request).status_code == 405


def test_the_data_are_those_of_all_processes(redis_client: redis.Redis) -> None:
    tell(redis_client, snapshot(1), snapshot(2))
    data = json.loads(ask(live.data, staff('view_live')).content)
    assert data['totals']['open'] == 200
    assert len(data['processes']) == 2


def test_who_asks_is_told_what_goes_on_next(redis_client: redis.Redis) -> None:
    ask(live.data, staff('view_live'))
    assert read_watchers(redis_client) == ['staff']
    redis_client.flushall()
    stranger = User.objects.create_user('stranger', is_staff=True)
    with pytest.raises(PermissionDenied):
        ask(live.data, stranger)
    assert read_watchers(redis_client) == []


def test_a_channel_with_a_history_shows_its_last_messages_and_who_is_there() -> None:
    publisher = RedisPublisher(facility='chat/7', broadcast=True)
    for number in range(30):
        publisher.publish_message(f'message {number}')
    shown = json.loads(ask(live.channel, staff('view_live'), facility='chat/7').content)
    assert [message['text'] for message in shown['messages']][:2] == ['message 29', 'message 28']
    assert len(shown['messages']) == 20
    assert shown['count'] == Presence('chat/7').count() == 0


def test_another_channel_shows_its_kept_message() -> None:
    RedisPublisher(facility='news', users=['mary']).publish_message(b'\xff' + b'x' * 9000)
    asked = {'facility': 'news', 'audience': 'user', 'name': 'mary'}
    shown = json.loads(ask(live.channel, staff('view_live'), **asked).content)
    (message,) = shown['messages']
    assert len(message['text']) == 2001
    assert shown['members'] is None


def test_a_test_message_is_sent_and_not_kept(redis_client: redis.Redis) -> None:
    pubsub: Any = redis_client.pubsub()
    pubsub.subscribe('group:staff:news')
    pubsub.get_message(timeout=5)
    sent = {'facility': 'news', 'audience': 'group', 'name': 'staff', 'message': 'hello'}
    answer = ask(live.publish, staff('view_live', 'change_live'), **sent)
    assert json.loads(answer.content) == {'sent': 'group:staff:news'}
    assert pubsub.get_message(timeout=5)['data'] == b'hello'
    assert redis_client.get('group:staff:news') is None
    pubsub.close()


@pytest.mark.parametrize(
    'data',
    [
        {},
        {'facility': '  '},
        {'facility': 'x' * 501},
        {'facility': 'x', 'audience': 'everybody'},
        {'facility': 'x', 'audience': 'user'},
        {'facility': 'x', 'audience': 'user', 'name': 'y' * 501},
        {'facility': 'x', 'message': ''},
    ],
)
def test_nonsense_is_answered_with_what_is_wrong(data: dict[str, str]) -> None:
    answer = ask(live.publish, staff('view_live', 'change_live'), **{'message': 'x', **data})
    assert answer.status_code == 400
    assert json.loads(answer.content)['error'].endswith('.')


def test_without_redis_the_page_is_told_so() -> None:
    with override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1}):
        answer = ask(live.data, staff('view_live'))
    assert answer.status_code == 503
    assert json.loads(answer.content) == {'error': 'Redis does not answer.'}


# Who is connected


def test_without_processes_nobody_answers() -> None:
    user = staff('view_live')
    told = json.loads(ask(live.who, user).content)
    assert told['processes'] == 0
    shown = json.loads(ask(live.answers, user, question=told['question']).content)
    assert shown == {'open': 0, 'connections': [], 'after': '', 'answers': 0}


@pytest.mark.parametrize('question', ['', '7', 'x-0', '7-0:x', '7-0\n', '٣-٠'])
def test_what_is_no_question_has_no_answers(question: str) -> None:
    assert ask(live.answers, staff('view_live'), question=question).status_code == 400


def told_to_processes(client: redis.Redis) -> list[dict[str, Any]]:
    stream = control_keys('').stream
    entries: Any = client.xrange(stream)
    return [json.loads(fields[b'd']) for _, fields in entries]


def test_a_user_is_disconnected_or_unsubscribed(redis_client: redis.Redis) -> None:
    user = staff('view_live', 'change_live')
    assert ask(live.end, user, user='mary').status_code == 200
    assert ask(live.end, user, user='mary', channel='group:staff:news').status_code == 200
    first, second = told_to_processes(redis_client)
    assert (first['do'], first['user']) == ('disconnect', 'mary')
    assert (second['do'], second['channel']) == ('unsubscribe', 'group:staff:news')


def test_what_somebody_does_is_in_the_log_of_admin() -> None:
    user = staff('view_live', 'change_live')
    with override_settings(INSTALLED_APPS=['django.contrib.admin', *settings.INSTALLED_APPS]):
        from django.contrib.admin.models import LogEntry

        with patch.object(type(LogEntry.objects), 'create') as create:
            ask(live.end, user, user='mary')
            ask(live.end, user, user='mary', channel='group:staff:news')
            ask(live.publish, user, facility='news', message='hello\0')
    assert [
        (call.kwargs['user_id'], call.kwargs['object_repr'], call.kwargs['change_message'])
        for call in create.call_args_list
    ] == [
        (user.pk, 'mary', 'Ended all connections.'),
        (user.pk, 'mary', 'Unsubscribed from group:staff:news.'),
        (user.pk, 'broadcast:news', 'Sent a test message: hello\ufffd'),
    ]


@pytest.mark.parametrize(
    'data',
    [{}, {'user': ' '}, {'user': 'x' * 501}, {'user': 'mary', 'channel': 'no channel'}],
)
def test_nobody_and_nothing_cannot_be_ended(
    data: dict[str, str], redis_client: redis.Redis
) -> None:
    assert ask(live.end, staff('view_live', 'change_live'), **data).status_code == 400
    assert told_to_processes(redis_client) == []


# In the terminal


def output(*arguments: str) -> str:
    from io import StringIO

    out = StringIO()
    call_command('ws4redis_live', *arguments, stdout=out)
    return out.getvalue()


def test_the_command_prints_the_same_as_json(redis_client: redis.Redis) -> None:
    tell(redis_client, snapshot(1))
    assert json.loads(output('--json'))['totals']['open'] == 100


def test_the_command_draws_tables(redis_client: redis.Redis) -> None:
    evil = snapshot(1, open=12345)
    evil['facilities'] = [['\x1b[2J[bold]chat', 1, 2]]
    tell(redis_client, evil)
    shown = output('--once')
    assert '12,345 websockets in 1 processes' in shown
    assert '\x1b[2J' not in shown
    assert '[bold]chat' in shown


def test_the_command_says_that_redis_is_away() -> None:
    with override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1}):
        with pytest.raises(CommandError, match='Redis does not answer'):
            output('--json')


def test_the_application_makes_no_model() -> None:
    assert list(apps.get_app_config('ws4redis').get_models()) == []

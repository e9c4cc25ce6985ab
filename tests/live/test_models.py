from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core import serializers
from django.db import models, transaction
from django.db.models.signals import post_delete, post_save

from ws4redis.live import live_id, live_model, publish_saved
from ws4redis.live import models as module
from ws4redis.test import MemoryBroker, publish_in_memory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def memory() -> Iterator[MemoryBroker]:
    with publish_in_memory() as memory:
        yield memory


@pytest.fixture(autouse=True)
def _models_are_live_for_one_test() -> Iterator[None]:
    yield
    for model in list(module._live):
        uid = f'ws4redis.live.{model._meta.label}'
        assert post_save.disconnect(sender=model, dispatch_uid=uid)
        assert post_delete.disconnect(sender=model, dispatch_uid=uid)
    module._live.clear()


def published(memory: MemoryBroker, facility: str = 'groups') -> list[str]:
    return [message.decode() for message in memory.published(facility, broadcast=True)]


def test_a_row_comes_changes_and_goes(memory: MemoryBroker) -> None:
    live_model('groups', template='live/group.html')(Group)
    group = Group.objects.create(name='tea')
    row = live_id(group)
    group.name = '<coffee>'
    group.save()
    group.delete()
    assert published(memory) == [
        (
            f'<turbo-stream action="append" target="groups"><template><li id="{row}">tea</li>\n'
            '</template></turbo-stream>'
        ),
        (
            f'<turbo-stream action="replace" target="{row}"><template>'
            f'<li id="{row}">&lt;coffee&gt;</li>\n</template></turbo-stream>'
        ),
        f'<turbo-stream action="remove" target="{row}"></turbo-stream>',
    ]


def test_new_rows_may_come_first_and_elsewhere(memory: MemoryBroker) -> None:
    live_model('groups', template='live/group.html', target='rows', prepend=True)(Group)
    Group.objects.create(name='tea')
    assert published(memory)[0].startswith('<turbo-stream action="prepend" target="rows">')


def test_what_is_rolled_back_is_not_published(memory: MemoryBroker) -> None:
    live_model('groups', template='live/group.html')(Group)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Group.objects.create(name='tea')
        raise ZeroDivisionError
    assert memory.outbox == []
    with transaction.atomic():
        Group.objects.create(name='tea')
        assert memory.outbox == []
    assert len(published(memory)) == 1


def test_what_comes_and_goes_within_a_transaction_leaves_no_row_behind(
    memory: MemoryBroker,
) -> None:
    live_model('groups', template='live/group.html')(Group)
    with transaction.atomic():
        group = Group.objects.create(name='tea')
        row = live_id(group)
        group.delete()
    assert published(memory) == [f'<turbo-stream action="remove" target="{row}"></turbo-stream>']


def test_json_holds_the_fields_that_were_named_and_no_other(memory: MemoryBroker) -> None:
    live_model('users', fields=['username', 'get_full_name', 'is_active'])(User)
    user = User.objects.create_user('mary', password='secret', first_name='Mary')
    pk = user.pk
    user.delete()
    assert [json.loads(message) for message in published(memory, 'users')] == [
        {
            'type': 'saved',
            'created': True,
            'values': {'username': 'mary', 'get_full_name': 'Mary', 'is_active': True},
            'model': 'auth.user',
            'pk': pk,
        },
        {'type': 'deleted', 'model': 'auth.user', 'pk': pk},
    ]


def test_facility_and_audience_may_depend_on_the_instance(memory: MemoryBroker) -> None:
    live_model(
        lambda user: f'users/{user.username}',
        fields=['username'],
        audience=lambda user: {'users': [user]},
    )(User)
    User.objects.create_user('mary')
    assert len(memory.published('users/mary', users=['mary'])) == 1
    assert memory.published('users/mary', broadcast=True) == []


@pytest.mark.parametrize('audience', [None, {}, 'mary', []])
def test_an_audience_that_is_none_is_published_to_nobody(
    memory: MemoryBroker, audience: Any, caplog: pytest.LogCaptureFixture
) -> None:
    live_model('users', fields=['username'], audience=lambda user: audience)(User)
    user = User.objects.create_user('mary')
    user.delete()
    assert memory.outbox == []
    assert 'audience of a live model must return a dictionary' in caplog.text


def test_a_template_that_fails_does_not_fail_the_save(
    memory: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    live_model('groups', template='live/nowhere.html')(Group)
    Group.objects.create(name='tea')
    assert Group.objects.filter(name='tea').exists()
    assert 'TemplateDoesNotExist' in caplog.text


def test_fixtures_are_loaded_silently(memory: MemoryBroker) -> None:
    live_model('groups', template='live/group.html')(Group)
    data = serializers.serialize('json', [Group(pk=7, name='tea')])
    for item in serializers.deserialize('json', data):
        item.save()
    assert memory.outbox == []


def test_what_saves_without_signals_publishes_by_hand(memory: MemoryBroker) -> None:
    live_model('groups', template='live/group.html')(Group)
    group = Group.objects.create(name='tea')
    Group.objects.update(name='coffee')
    assert len(published(memory)) == 1
    group.refresh_from_db()
    publish_saved(group)
    assert 'coffee' in published(memory)[-1]


def test_wrong_declarations_are_refused_at_once() -> None:
    class Abstract(models.Model):
        class Meta:
            abstract = True
            app_label = 'tests'

    with pytest.raises(TypeError, match='either a template or fields'):
        live_model('groups')
    with pytest.raises(TypeError, match='either a template or fields'):
        live_model('groups', template='x.html', fields=['name'])
    with pytest.raises(TypeError, match='must be a list of names'):
        live_model('groups', fields='name')
    with pytest.raises(TypeError, match='is abstract'):
        live_model('groups', fields=['name'])(Abstract)
    with pytest.raises(TypeError, match='decorates models'):
        live_model('groups', fields=['name'])(dict)  # type: ignore[type-var]
    with pytest.raises(TypeError, match='is not a live model'):
        publish_saved(Group(name='tea'))

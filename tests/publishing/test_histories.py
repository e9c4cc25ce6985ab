"""Publishing with a history, and reading it: from Redis, and from memory in tests of projects."""

from __future__ import annotations

import asyncio
import datetime
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.cache import SessionStore
from django.db import transaction
from django.template import Context, Template, TemplateSyntaxError
from django.test import RequestFactory, override_settings

from tests.programs import RedisServer
from tests.requirements import not_applicable
from ws4redis.broker.history import Kind, Position
from ws4redis.broker.tokens import PositionsToken
from ws4redis.history import aget_position, ahistory, get_position, history
from ws4redis.publisher import RedisPublisher
from ws4redis.publishing.broker import use_broker
from ws4redis.test.memory import MemoryBroker

CHANNEL = 'broadcast:chat'


@pytest.fixture(autouse=True)
def _facilities() -> Iterator[None]:
    with override_settings(WS4REDIS_FACILITIES={'chat': {'HISTORY_SIZE': 5, 'KEEP': 60}}):
        yield


@pytest.fixture(params=['redis', 'memory'], autouse=True)
def _broker(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[None]:
    if request.param == 'redis':
        yield
    else:
        with use_broker(MemoryBroker()):
            yield


def chat(**options: Any) -> RedisPublisher:
    return RedisPublisher(facility='chat', **(options or {'broadcast': True}))


def texts(**options: Any) -> list[str]:
    return [message.text for message in history('chat', **options).messages]


def test_publishing_returns_the_position_on_each_channel() -> None:
    positions = chat(broadcast=True, users=['mary']).publish_message('hi')
    assert {name: p.offset for name, p in positions.items()} == {CHANNEL: 1, 'user:mary:chat': 1}
    assert chat().publish_message('ho')[CHANNEL].offset == 2


def test_a_facility_without_a_history_has_no_positions() -> None:
    assert RedisPublisher(facility='news', broadcast=True).publish_message('hi') == {}


def test_a_history_is_read_forwards_and_backwards_and_in_pages() -> None:
    for number in range(4):
        chat().publish_message(str(number))
    assert texts() == ['0', '1', '2', '3']
    assert texts(limit=2) == ['0', '1']
    assert texts(limit=2, reverse=True) == ['3', '2']
    second = history('chat').messages[1].position
    assert texts(since=second) == ['2', '3']
    assert texts(since=second, reverse=True) == ['0']


def test_a_position_for_a_page_is_followed_by_what_comes_after_it() -> None:
    position = get_position('chat')
    chat().publish_message('new')
    found = history('chat', since=position)
    assert [message.text for message in found.messages] == ['new']
    assert found.gap is None
    assert history('chat', since=found.position).messages == []


def test_what_the_limit_cuts_off_comes_after_the_position_that_is_told() -> None:
    found = history('chat', since=get_position('chat'))
    published = ['1', '2', '3']
    for text in published:
        chat().publish_message(text)
    pages = []
    while (found := history('chat', since=found.position, limit=2)).messages:
        pages.append([message.text for message in found.messages])
    assert (pages, found.gap) == ([['1', '2'], ['3']], None)
    backwards = history('chat', limit=1, reverse=True)
    assert backwards.position == get_position('chat')


def test_what_cannot_be_given_is_told() -> None:
    first = get_position('chat')
    for number in range(6):
        chat().publish_message(str(number))
    assert history('chat', since=first).gap == 'trimmed'
    assert history('chat', since='nonsense').gap == 'epoch'
    assert history('chat', since=get_position('chat', users=['mary'])).gap == 'epoch'
    newest = history('chat').messages[-1].position
    assert history('chat', since=Position(newest.epoch, 100)).gap == 'broken'


def test_nothing_comes_before_the_first_or_before_nonsense() -> None:
    start = get_position('chat')
    first = chat().publish_message('1')[CHANNEL]
    for since in (start, first, Position(first.epoch, 0)):
        found = history('chat', since=since, reverse=True)
        assert (found.messages, found.gap) == ([], None)
    for nonsense in ('', 'nonsense', Position('another', 5), Position('\ud800', 5, '\ud800')):
        for reverse in (False, True):
            found = history('chat', since=nonsense, reverse=reverse)
            assert (found.messages, found.gap) == ([], 'epoch')
    assert history('chat', since=Position(first.epoch, 9), reverse=True).gap == 'broken'


def test_the_text_of_a_position_names_nobody() -> None:
    text = get_position('chat', users=['mary'], sessions=['secret'])
    assert 'mary' not in text
    assert 'secret' not in text
    token = PositionsToken(text)
    assert token.position_on('user:mary:chat') is not None
    assert token.position_on(CHANNEL) is None


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: history('news'), 'HISTORY_SIZE'),
        (lambda: get_position('news'), 'HISTORY_SIZE'),
        (lambda: history('chat', broadcast=True, users=['mary']), 'one channel'),
        (lambda: history('chat', limit=0), 'limit'),
        (lambda: chat().publish_message('hi', idempotency_key=''), 'idempotency_key'),
        (lambda: chat().publish_message('hi', idempotency_key='x' * 201), 'idempotency_key'),
        (
            lambda: RedisPublisher(facility='news', broadcast=True).publish_message(
                'hi', idempotency_key='a'
            ),
            'HISTORY_SIZE',
        ),
        (
            lambda: RedisPublisher(facility='news', broadcast=True).publish_message(
                'hi', idempotency_key='a', on_commit=True
            ),
            'HISTORY_SIZE',
        ),
        (lambda: chat().publish_message('hi', expire=2**60), 'expire'),
        (lambda: chat().publish_json([float('nan')]), 'JSON'),
    ],
)
def test_errors_say_what_to_do(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
    assert texts() == []


def test_an_idempotency_key_publishes_once() -> None:
    first = chat().publish_message('paid', idempotency_key='order 7')
    assert chat().publish_message('paid', idempotency_key='order 7') == first
    assert texts() == ['paid']


def test_values_are_published_as_json() -> None:
    day = datetime.date(2026, 1, 2)
    chat().publish_json({'day': day, 'name': 'Zoë'})
    (message,) = history('chat').messages
    assert message.payload == '{"day":"2026-01-02","name":"Zoë"}'.encode()
    assert message.kind is Kind.JSON
    assert message.value == {'day': '2026-01-02', 'name': 'Zoë'}
    with pytest.raises(TypeError):
        chat().publish_json(object())


def test_templates_are_published_as_they_are_rendered() -> None:
    with override_settings(
        TEMPLATES=[
            {
                'BACKEND': 'django.template.backends.django.DjangoTemplates',
                'OPTIONS': {
                    'loaders': [
                        (
                            'django.template.loaders.locmem.Loader',
                            {'row.html': '<li>{{ name }}</li>'},
                        )
                    ]
                },
            }
        ]
    ):
        chat().publish_html('row.html', {'name': '<b>'})
        asyncio.run(chat().apublish_html('row.html', {'name': 'a'}))
    assert texts() == ['<li>&lt;b&gt;</li>', '<li>a</li>']


# Transactions


@pytest.mark.django_db(transaction=True)
def test_a_message_waits_for_the_commit() -> None:
    with transaction.atomic():
        assert chat().publish_message('committed', on_commit=True) == {}
        assert texts() == []
    assert texts() == ['committed']


@pytest.mark.django_db(transaction=True)
def test_a_message_of_a_transaction_that_is_rolled_back_is_not_published() -> None:
    with transaction.atomic():
        chat().publish_message('lost', on_commit=True)
        chat().publish_json('lost', on_commit=True)
        transaction.set_rollback(True)
    assert texts() == []


@pytest.mark.django_db(transaction=True)
@override_settings(WS4REDIS_ON_COMMIT=True)
def test_the_setting_lets_all_messages_wait() -> None:
    with transaction.atomic():
        chat().publish_message('waits')
        chat().publish_message('does not', on_commit=False)
        assert texts() == ['does not']
    assert texts() == ['does not', 'waits']
    chat().publish_message('without a transaction')
    assert texts()[-1] == 'without a transaction'


# Coroutines


def test_coroutines_publish_and_read() -> None:
    async def view() -> None:
        position = await aget_position('chat')
        await chat().apublish_message('one', idempotency_key='a')
        await chat().apublish_json([2])
        found = await ahistory('chat', since=position)
        assert [message.text for message in found.messages] == ['one', '[2]']
        assert await RedisPublisher().afetch_message(None, 'chat') == b'[2]'

    asyncio.run(view())


@pytest.mark.django_db(transaction=True)
def test_a_coroutine_may_wait_for_the_commit() -> None:
    monkey = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched('threading'):
        not_applicable("under gevent's patching asgiref has no thread beside the event loop")

    async def publish() -> None:
        await chat().apublish_message('committed', on_commit=True)

    with transaction.atomic():
        async_to_sync(publish)()
        assert texts() == []
    assert texts() == ['committed']


# The template tag


def render(source: str, **context: Any) -> str:
    return Template('{% load ws4redis %}' + source).render(Context(context))


def test_a_template_names_the_newest_position() -> None:
    chat().publish_message('hi')
    assert render("{% websocket_position 'chat' %}") == get_position('chat')
    request = RequestFactory().get('/')
    request.session = SessionStore()
    request.session.create()
    expected = get_position('chat', sessions=[request.session])
    assert render("{% websocket_position 'chat' 'session' %}", request=request) == expected


def test_a_template_that_names_another_audience_is_wrong() -> None:
    with pytest.raises(TemplateSyntaxError, match='everybody'):
        render("{% websocket_position 'chat' 'everybody' %}")

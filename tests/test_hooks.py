"""What a project plugs in is asked, or refused: never called in vain."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from tests.django_requests import logged_in_request, make_user
from ws4redis.exceptions import HandshakeError
from ws4redis.handlers import WebSocketHandler
from ws4redis.handlers.session import HandlerSession
from ws4redis.handshake.policy import admit
from ws4redis.protocol.frames import Opcode
from ws4redis.subscriber import RedisSubscriber


async def refuse_later(*args: object) -> None:
    """Refuse everybody, if it were awaited."""
    raise PermissionDenied


def forgets_to_await(*args: object) -> Any:
    return refuse_later(*args)


class RefusesLater:
    async def __call__(self, *args: object) -> None:
        raise PermissionDenied


async def refuse_as_async_generator(*args: object) -> AsyncIterator[str]:
    yield 'subscribe-broadcast'
    raise PermissionDenied


def refuse_as_generator(*args: object) -> Iterator[str]:
    yield 'subscribe-broadcast'
    raise PermissionDenied


def refusal() -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        admit(RequestFactory().get('/ws/foo?subscribe-broadcast'))
    return caught.value


CALLBACKS = [
    (refuse_later, 403),
    (functools.partial(refuse_later, 'an argument of its own'), 403),
    (RefusesLater(), 403),
    (forgets_to_await, 500),
    (refuse_as_async_generator, 500),
]


@pytest.mark.parametrize(('callback', 'status'), [*CALLBACKS, (refuse_as_generator, 500)])
def test_an_authentication_that_refuses_is_never_ignored(callback: Any, status: int) -> None:
    with override_settings(WS4REDIS_PROCESS_REQUEST=callback):
        assert refusal().status == status


@pytest.mark.parametrize(('callback', 'status'), [*CALLBACKS, (refuse_as_generator, 403)])
def test_a_restriction_of_channels_that_refuses_is_never_ignored(
    callback: Any, status: int
) -> None:
    with override_settings(WS4REDIS_ALLOWED_CHANNELS=callback):
        assert refusal().status == status


async def allow_members(request: Any, channels: list[str]) -> list[str]:
    return channels if (await request.auser()).is_authenticated else []


@pytest.mark.django_db(transaction=True)
@override_settings(WS4REDIS_ALLOWED_CHANNELS=allow_members)
def test_an_asynchronous_callback_can_ask_for_the_user() -> None:
    request = RequestFactory().get('/ws/foo?subscribe-broadcast')
    assert admit(request).subscriber._subscription.names == []
    login = logged_in_request(make_user('john'))
    request.COOKIES['sessionid'] = str(login.session.session_key)
    assert admit(request).subscriber._subscription.names == ['broadcast:foo']


class HandsCoroutineOut(RedisSubscriber):
    """Name no channel, since nobody awaits what it returns."""

    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> Any:
        return refuse_later()


@override_settings(WS4REDIS_SUBSCRIBER=HandsCoroutineOut)
def test_a_subscriber_that_has_not_run_lets_nobody_in() -> None:
    assert refusal().status == 500


@pytest.mark.parametrize('returned', [None, 'subscribe-broadcast'])
def test_a_restriction_that_returns_no_list_allows_nothing_and_says_so(
    returned: object, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        override_settings(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: returned),
        caplog.at_level(logging.WARNING, 'ws4redis'),
    ):
        admission = admit(RequestFactory().get('/ws/foo?subscribe-broadcast'))
    assert admission.subscriber._subscription.names == []
    assert 'WS4REDIS_ALLOWED_CHANNELS returned' in caplog.text


class Forgetful(WebSocketHandler):
    """Return coroutines, which nobody awaits."""

    on_connect = on_open = on_message = forgets_to_await  # type: ignore[assignment]


def test_a_handler_that_has_not_run_takes_no_websocket() -> None:
    request: Any = RequestFactory().get('/')
    connection: Any = None
    session = HandlerSession(Forgetful, request, {}, connection)
    with pytest.raises(TypeError, match=r'on_connect\(\) returned'):
        session.connect()
    with pytest.raises(TypeError, match=r'on_open\(\) returned'):
        session.receive(Opcode.TEXT, b'hi')
    with pytest.raises(TypeError, match=r'on_message\(\) returned'):
        session.receive(Opcode.TEXT, b'hi')

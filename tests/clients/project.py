"""Code of a project that clients call."""

from __future__ import annotations

import time
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from ws4redis.exceptions import ClientError


def add(request: HttpRequest, data: list[int]) -> dict[str, Any]:
    return {'sum': sum(data), 'user': str(request.user)}


async def echo(request: HttpRequest, data: Any) -> Any:
    return data


def refuse(request: HttpRequest, data: Any) -> None:
    raise ClientError(441, 'no such poll')


def forbid(request: HttpRequest, data: Any) -> None:
    raise PermissionDenied


def fail(request: HttpRequest, data: Any) -> None:
    raise ValueError('a bug')


def take_long(request: HttpRequest, seconds: float) -> str:
    time.sleep(seconds)
    return 'done'


def nonsense(request: HttpRequest, data: Any) -> object:
    return object()


RPC = {
    'add': 'tests.clients.project.add',
    'poll.*': 'tests.clients.project.refuse',
    'echo': 'tests.clients.project.echo',
    'forbid': 'tests.clients.project.forbid',
    'fail': 'tests.clients.project.fail',
    'take_long': 'tests.clients.project.take_long',
    'nonsense': 'tests.clients.project.nonsense',
}


def only_lobby(request: HttpRequest, facility: str, audience: str) -> bool:
    assert request.path == f'/ws/{facility}'
    return facility == 'room/lobby' and audience == 'broadcast'


FACILITIES = {
    'chat*': {'HISTORY_SIZE': 100, 'PUBLISH': 'anyone'},
    'recovery:*': {'HISTORY_SIZE': 10, 'PUBLISH': 'anyone'},
    'open*': {'PUBLISH': 'anyone'},
    'private': {'SUBSCRIBE': 'nobody'},
    'members': {'SUBSCRIBE': 'authenticated'},
    'room*': {'SUBSCRIBE': 'tests.clients.project.only_lobby'},
}
SETTINGS = {
    'WS4REDIS_CLIENT_URL': '/connection/websocket',
    'WS4REDIS_FACILITIES': FACILITIES,
    'WS4REDIS_RPC': RPC,
    'WS4REDIS_RPC_TIMEOUT': 2,
}

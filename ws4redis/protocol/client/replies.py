"""Replies and pushes: what clients are sent, each a JSON object on one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ws4redis.protocol.client.codes import ErrorCode, UnsubscribeCode
from ws4redis.protocol.client.data import encode_json

#: The server's ping, and the client's pong.
PING = b'{}'
# Some clients take messages of 1 MiB at most (`websockets` in Python, by default). So replies that
# hold what was missed on several channels share no frame when that is much.
MAX_SHARED_CHARACTERS: Final = 64 * 1024


def encode_reply(number: int, method: str, result: Mapping[str, Any]) -> str:
    """Return the reply to a command. Parts of the result that are JSON already: see ``Raw``."""
    return f'{{"id":{number},"{method}":{encode_raw(result)}}}'


def encode_error(number: int, code: int, message: str, *, is_temporary: bool = False) -> str:
    """Return the reply to a command that has failed."""
    error: dict[str, Any] = {'code': int(code), 'message': message}
    if is_temporary:
        error['temporary'] = True
    return f'{{"id":{number},"error":{encode_json(error)}}}'


def encode_error_code(number: int, code: ErrorCode) -> str:
    return encode_error(number, code, code.message, is_temporary=code.is_temporary)


class Raw(str):
    """A part of a result that is JSON already."""

    __slots__ = ()


def encode_raw(value: Any) -> str:
    """Return a value as JSON in which each ``Raw`` stands as it is."""
    if isinstance(value, Raw):
        return value
    kind = type(value)
    if kind is str:
        return encode_json(value)
    if kind is int:
        return str(value)
    if isinstance(value, Mapping):
        return f'{{{",".join(f"{encode_json(key)}:{encode_raw(v)}" for key, v in value.items())}}}'
    if isinstance(value, list):
        return f'[{",".join(map(encode_raw, value))}]'
    return encode_json(value)


def encode_publication(data: str, offset: int | None) -> Raw:
    """Return a publication; ``data`` is JSON, the offset absent where there is no history."""
    return Raw(f'{{"data":{data}}}' if offset is None else f'{{"data":{data},"offset":{offset}}}')


def encode_publication_push(channel: str, publication: Raw) -> str:
    return f'{{"push":{{"channel":{encode_json(channel)},"pub":{publication}}}}}'


def encode_push(kind: str, content: Mapping[str, Any], *, channel: str | None = None) -> str:
    """Return a push that is no publication: ``join``, ``leave``, ``subscribe``, ``message`` …"""
    push: dict[str, Any] = {} if channel is None else {'channel': channel}
    push[kind] = content
    return f'{{"push":{encode_raw(push)}}}'


def encode_unsubscribe(channel: str, code: int, reason: str = '') -> str:
    if not reason and code in set(UnsubscribeCode):
        reason = UnsubscribeCode(code).reason
    content = {'code': int(code), 'reason': reason}
    return encode_push('unsubscribe', content, channel=channel)


def encode_frame(messages: list[str]) -> bytes:
    """Return several messages as the content of one frame."""
    return '\n'.join(messages).encode()


def encode_frames(messages: list[str]) -> Iterator[bytes]:
    """Yield the contents of frames: short messages share one, a long one has its own."""
    start = size = 0
    for place, message in enumerate(messages):
        size += len(message)
        if size > MAX_SHARED_CHARACTERS and place > start:
            yield encode_frame(messages[start:place])
            start, size = place, len(message)
    yield encode_frame(messages[start:])

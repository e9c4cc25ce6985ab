"""Payloads as they stand in messages of the client protocol.

A payload that was published as JSON is that value; text is a JSON string; other bytes are an object
``{"b64": "…"}``. Clients publish in the same way.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from typing import Any, Final, NamedTuple, NoReturn

BYTES_KEY: Final = 'b64'


class Payload(NamedTuple):
    """What a client publishes: bytes, and whether they are a JSON value rather than text."""

    content: bytes
    is_json: bool


def encode_json(value: Any) -> str:
    """Return a value as JSON on one line; raise ``ValueError`` or ``TypeError`` if it has none."""
    return _encode(value)


def decode_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; raise ``ValueError`` for anything else.

    Python would take ``NaN`` too, and follow nested brackets until the stack is used up.
    """
    if not isinstance(text, str):
        text = text.decode(json.detect_encoding(text), 'surrogatepass')
    try:
        return _decode(text)
    except RecursionError:
        raise ValueError('the value is nested too deeply') from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is no JSON')


# `json.dumps` and `json.loads` make one of these for each value, which costs more than the value.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(',', ':'), allow_nan=False).encode
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def payload_of(value: Any) -> Payload:
    """Return what is published for a value that a client sent.

    Raise ``ValueError`` for numbers and characters that no message can carry.
    """
    if isinstance(value, str):
        return Payload(value.encode(), is_json=False)
    if isinstance(value, dict) and value.keys() == {BYTES_KEY}:
        try:
            return Payload(b64decode(value[BYTES_KEY], validate=True), is_json=False)
        except (TypeError, binascii.Error):
            # A value of the project that only looks like bytes.
            pass
    return Payload(encode_json(value).encode(), is_json=True)


def data_of(payload: bytes, *, is_json: bool) -> str:
    """Return a payload as JSON that stands on one line."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return f'{{"{BYTES_KEY}":"{b64encode(payload).decode()}"}}'
    if is_json:
        try:
            decode_json(text)
        except ValueError:
            # Whoever published it may call anything JSON.
            return encode_json(text)
        # Within JSON these stand between tokens only, and elsewhere they would end the message.
        return text.replace('\n', ' ').replace('\r', ' ') if '\n' in text or '\r' in text else text
    return encode_json(text)

"""Judges of plain values: what the value of a setting must look like."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from reprlib import repr as short_repr
from typing import Any

from ws4redis.protocol.extensions import Compression
from ws4redis.settings.setting import Judge

# A token of HTTP (RFC 9110, section 5.6.2), as names of headers and subprotocols are.
# An absolute path without a query; `//` would begin a host in a browser.
PATH = re.compile(r'/(?!/)[^?#\s]*')
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Browsers send no origin of ws: or wss:; schemes of their own, such as file:, may have no host.
ORIGIN = re.compile(
    r'https?://(\*\.)?[^/?#@*\s]+|(?!https?:|wss?:)[a-z][a-z0-9+.-]*://(\*\.)?[^/?#@*\s]*',
    re.IGNORECASE,
)


def must_be(what: str, is_right: Callable[[Any], bool]) -> Judge:
    """Return a judge that complains in one sentence."""

    def judge(value: Any) -> str | None:
        return None if is_right(value) else f'must be {what}, not {short_repr(value)}'

    return judge


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


def is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def is_positive_whole(value: Any) -> bool:
    return is_whole_number(value) and value > 0


def is_not_negative(value: Any) -> bool:
    return is_number(value) and value >= 0


def is_filled_string(value: Any) -> bool:
    return isinstance(value, str) and value != ''


def is_list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(is_right, value))


def is_token(value: object) -> bool:
    return isinstance(value, str) and TOKEN.fullmatch(value) is not None


def is_path(value: object) -> bool:
    return isinstance(value, str) and PATH.fullmatch(value) is not None


def is_path_or_end(value: object) -> bool:
    """Tell whether this is a path, or what follows the prefix of one."""
    return isinstance(value, str) and value != '' and is_path('/' + value.removeprefix('/'))


def is_origin(value: object) -> bool:
    return value == '*' or (isinstance(value, str) and ORIGIN.fullmatch(value) is not None)


def is_proxy(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return value == 'unix'
    return True


def judge_compression(value: Any) -> str | None:
    try:
        Compression.from_setting(value)
    except ValueError as exc:
        return str(exc).removeprefix('WS4REDIS_COMPRESSION').strip().rstrip('.')
    return None


def judge_subprotocols(value: Any) -> str | None:
    if value is None:
        return None
    if not is_list_of(is_token)(value):
        return f'must be a list of names of subprotocols or None, not {short_repr(value)}'
    return 'names a subprotocol twice' if len(set(value)) < len(value) else None


SECONDS = must_be('a positive number of seconds', is_positive)
SECONDS_OR_ZERO = must_be('a number of seconds', is_not_negative)
SECONDS_OR_NONE = must_be('a positive number of seconds or None', or_none(is_positive))
BYTES = must_be('a positive whole number of bytes', is_positive_whole)
RATE = must_be('a positive number or None', or_none(is_positive))
LIMIT = must_be('a positive whole number or None', or_none(is_positive_whole))

"""What templates need to know to open a websocket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from django.urls import get_script_prefix
from django.utils.safestring import SafeString, mark_safe

from ws4redis.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest

# Neither `</script>` nor `<!--` may appear in a literal within a script element.
ESCAPES_IN_SCRIPT = {ord(character): f'\\u{ord(character):04X}' for character in "<>&'"}


def default(request: HttpRequest) -> dict[str, str]:
    """Add ``WEBSOCKET_URI`` and ``WS4REDIS_HEARTBEAT``.

    The former is ``ws://`` or ``wss://``, the host, the prefix of the whole site (``SCRIPT_NAME``)
    as in all of Django's URLs, and ``WEBSOCKET_URL``; the latter a JavaScript literal: the quoted
    heartbeat string, or ``null``.
    """
    return {
        'WEBSOCKET_URI': websocket_uri(request),
        'WS4REDIS_HEARTBEAT': _javascript_literal(conf.WS4REDIS_HEARTBEAT),
    }


def websocket_uri(request: HttpRequest) -> str:
    """Return the address before the facility of all websockets."""
    scheme = 'wss' if request.is_secure() else 'ws'
    path = get_script_prefix().rstrip('/') + conf.WEBSOCKET_URL
    return f'{scheme}://{request.get_host()}{path}'


def _javascript_literal(value: str | None) -> SafeString:
    literal = json.dumps(value).translate(ESCAPES_IN_SCRIPT)
    return mark_safe(literal)  # noqa: S308 - escaped right above

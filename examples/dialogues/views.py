"""Two views that talk with their visitor: each serves a page, and the websocket of that page.

The websocket has the URL of the page itself. While it is open the view runs, and blocks in its own
greenlet or thread.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render

from ws4redis.decorators import accept_websocket

LONGEST_SECONDS = 60


# The types of Django know nothing of request.websocket: hence Any.
@accept_websocket
def echo(request: Any) -> HttpResponse | None:
    """Send back what the visitor sends."""
    if not request.is_websocket():
        return render(request, 'dialogues/echo.html')
    for message in request.websocket:
        request.websocket.send(message)
    return None


@accept_websocket
def countdown(request: Any) -> HttpResponse | None:
    """Count down from the number that the visitor sends, until it sends anything else.

    When the view returns, the websocket is closed.
    """
    if not request.is_websocket():
        return render(request, 'dialogues/countdown.html', {'longest': LONGEST_SECONDS})
    websocket = request.websocket
    seconds = wanted_seconds(websocket.wait(timeout=10))
    for remaining in range(seconds, 0, -1):
        websocket.send_json({'remaining': remaining})
        # A second's sleep, which a message or the visitor's leaving cuts short.
        interruption = websocket.wait(timeout=1)
        if websocket.is_closed():
            return None
        if interruption is not None:
            websocket.send_json({'stopped': remaining})
            return None
    websocket.send_json({'remaining': 0})
    return None


def wanted_seconds(message: str | bytes | None) -> int:
    """Return the number in a message, 0 if there is none."""
    try:
        number = int(message or 0)
    except ValueError:
        return 0
    return min(max(number, 0), LONGEST_SECONDS)

"""Number messages and publish them, four a second, for the page that breaks things."""

from __future__ import annotations

import secrets
import time
from typing import Any

import redis
from django.core.management.base import BaseCommand

from ws4redis.presence import Presence
from ws4redis.publisher import RedisPublisher

FACILITY = 'ticker'
INTERVAL_SECONDS = 0.25
TICKS_PER_LOOK = 4
LOOK_SECONDS = 1
# Whoever has lost the connection is to miss something.
LINGER_SECONDS = 15
TRY_AGAIN_SECONDS = 0.2


class Command(BaseCommand):
    """Publish while somebody listens. No message is given up: each waits until Redis has it."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        # Another run numbers anew; browsers tell them apart by its name.
        run = secrets.token_hex(4)
        publisher = RedisPublisher(facility=FACILITY, broadcast=True)
        number = 0
        due = heard_at = time.monotonic()
        while True:
            if is_anybody_there():
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > LINGER_SECONDS:
                time.sleep(LOOK_SECONDS)
                due = time.monotonic()
                continue
            for _tick in range(TICKS_PER_LOOK):
                number += 1
                publish(publisher, run, number, made_at=time.time() - (time.monotonic() - due))
                # After an outage those that are overdue follow at once.
                due += INTERVAL_SECONDS
                time.sleep(max(0, due - time.monotonic()))


def is_anybody_there() -> bool:
    try:
        return Presence(FACILITY).count() > 0
    except redis.RedisError:
        # Nobody knows, so better go on.
        return True


def publish(publisher: RedisPublisher, run: str, number: int, *, made_at: float) -> None:
    """Publish a number, however often it takes; the key keeps it from being published twice."""
    message = {'run': run, 'number': number, 'made_at': round(made_at * 1000)}
    while True:
        try:
            publisher.publish_json(message, idempotency_key=f'{run} {number}')
        except redis.RedisError:
            time.sleep(TRY_AGAIN_SECONDS)
        else:
            return

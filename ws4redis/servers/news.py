"""Tell those who look at the live page what all processes do, as soon as that is known.

One of the processes puts it together, in its pool, and only while somebody looks. It is published
as any message, to the users who have asked for the page and may see it, and to nobody else.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from ws4redis.broker.connections import get_client
from ws4redis.broker.link import ignore
from ws4redis.broker.snapshots import read_snapshots
from ws4redis.broker.watchers import read_watchers, take_turn, watchers_command
from ws4redis.publishing.publisher import RedisPublisher
from ws4redis.servers.overview import overview_of

if TYPE_CHECKING:
    from ws4redis.hub.hub import Hub

logger = logging.getLogger('ws4redis')

FACILITY: Final = 'ws4redis-live'


class News:
    """Tell what goes on for one hub, in turn with others. All of it runs in the loop."""

    def __init__(self, hub: Hub, process: str, interval_seconds: float) -> None:
        self._hub = hub
        self._process = process
        self._interval = interval_seconds
        self._is_telling = False

    def look(self) -> None:
        """Ask whether somebody wants to know; called when a snapshot was told."""
        if not self._is_telling:
            self._hub.links.commands.send(*watchers_command(), replied=self._looked, refused=ignore)

    def _looked(self, users: Any) -> None:
        if users and not self._is_telling:
            self._is_telling = True
            # The others of this interval find that it was this one's turn.
            self._hub.loop.driver.submit(self._told, tell, self._process, 0.9 * self._interval)

    def _told(self, result: None, exc: BaseException | None) -> None:
        self._is_telling = False
        if exc is not None:
            logger.error('the live page could not be told what goes on', exc_info=exc)


def tell(process: str, seconds: float) -> None:
    """Tell all who watch, unless another process has done so within some seconds. Blocks."""
    # Without Redis the page asks by itself, and says so.
    with suppress(RedisError, OSError):
        client = get_client()
        users = read_watchers(client)
        if not users or not take_turn(client, process, seconds):
            return
        news = json.dumps(overview_of(read_snapshots(client)), separators=(',', ':'))
        publisher = RedisPublisher(facility=FACILITY, users=users)
        publisher.publish_message(news, expire=0, on_commit=False)

"""Read histories and positions in the Django loop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Unpack

from asgiref.sync import sync_to_async

from ws4redis.broker.history import Entry, Kind, Outcome, Page, PageRequest, Position
from ws4redis.broker.outgoing import options_of_channel
from ws4redis.broker.tokens import NONSENSE, PositionsToken, encode_positions
from ws4redis.publishing.audience import AudienceOptions, channels_of
from ws4redis.publishing.broker import current_broker

DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Message:
    """One publication of a history.

    ``payload`` is what was published, as bytes; ``position`` its place.
    """

    payload: bytes
    position: Position
    kind: Kind

    @property
    def text(self) -> str:
        """The payload as text; raise ``UnicodeDecodeError`` where it is none."""
        return self.payload.decode()

    @property
    def value(self) -> Any:
        """What the payload holds as JSON; raise ``ValueError`` where it is none."""
        return json.loads(self.payload)


@dataclass(frozen=True, slots=True)
class History:
    """A part of a channel's history, in the order that was asked for.

    ``gap`` tells why what followed ``since`` cannot be given: ``trimmed``, ``epoch`` or ``broken``;
    None where nothing is missing. ``position`` is where to go on, as :func:`get_position` returns
    it: that of the last message; the newest one where there is none, or with ``reverse``.
    """

    messages: list[Message]
    position: str
    gap: str | None


def history(
    facility: str,
    since: str | Position | None = None,
    limit: int = DEFAULT_LIMIT,
    *,
    reverse: bool = False,
    **audience: Unpack[AudienceOptions],
) -> History:
    """Return what was published on a channel, at most ``limit`` messages.

    ``since`` is a position, as :func:`get_position` or a message has it: what came after it is
    returned, or with ``reverse`` what came before it, the newest first. The audience is given as to
    ``RedisPublisher``, and must be a single channel; by default it is the broadcast.

    Raise ``ValueError`` for a facility without a history, another number of channels or a limit
    below 1, and redis-py's ``ConnectionError`` when Redis cannot be reached. It is one round trip.
    """
    request = _page_request(facility, since, limit, reverse, audience)
    return _history_of(request, current_broker().read_page(request))


async def ahistory(
    facility: str,
    since: str | Position | None = None,
    limit: int = DEFAULT_LIMIT,
    *,
    reverse: bool = False,
    **audience: Unpack[AudienceOptions],
) -> History:
    """Do as :func:`history` without blocking the event loop."""
    # Whom SELF means may have to be read from the session store or the database.
    request = await sync_to_async(_page_request)(facility, since, limit, reverse, audience)
    return _history_of(request, await current_broker().aread_page(request))


def get_position(facility: str, **audience: Unpack[AudienceOptions]) -> str:
    """Return the newest position on the channels of an audience, as a text for the page.

    Call it *before* the queries whose results go into the page, and let the page name it as
    ``since``: then nothing is missed that is published between the queries and the subscription.
    The audience is given as to ``RedisPublisher``; by default it is the broadcast.

    Raise ``ValueError`` for a facility without a history, and redis-py's ``ConnectionError`` when
    Redis cannot be reached. It is one round trip.
    """
    return encode_positions(current_broker().positions(_channels_of(facility, audience)))


async def aget_position(facility: str, **audience: Unpack[AudienceOptions]) -> str:
    """Do as :func:`get_position` without blocking the event loop."""
    channels = await sync_to_async(_channels_of)(facility, audience)
    return encode_positions(await current_broker().apositions(channels))


def _channels_of(facility: str, audience: AudienceOptions) -> list[str]:
    channels = channels_of(facility, audience)
    for channel in channels:
        if not options_of_channel(channel).has_history:
            raise ValueError(
                f'the facility {facility!r} has no history; give it one by HISTORY_SIZE in '
                'WS4REDIS_FACILITIES'
            )
    return channels


def _page_request(
    facility: str,
    since: str | Position | None,
    limit: int,
    reverse: bool,  # noqa: FBT001 - called here alone
    audience: AudienceOptions,
) -> PageRequest:
    if limit < 1:
        raise ValueError(f'limit must be 1 or more, not {limit!r}')
    channels = _channels_of(facility, audience)
    if len(channels) != 1:
        raise ValueError(f'a history is that of one channel, not of {len(channels)}')
    return PageRequest(channels[0], _position_on(channels[0], since), limit, reverse)


def _position_on(channel: str, since: str | Position | None) -> Position | None:
    if since is None or isinstance(since, Position):
        return since
    try:
        position = PositionsToken(since).position_on(channel)
    except ValueError:
        position = None
    # Nonsense, or the position of another channel, may come from a client: a gap, not an error.
    return position or NONSENSE


def _history_of(request: PageRequest, page: Page) -> History:
    messages = [_message_of(entry, page.newest.epoch) for entry in page.entries]
    # The limit may have cut off what comes then.
    go_on = messages[-1].position if messages and not request.reverse else page.newest
    return History(
        messages,
        encode_positions({request.channel: go_on}),
        None if page.outcome is Outcome.OK else str(page.outcome),
    )


def _message_of(entry: Entry, epoch: str) -> Message:
    return Message(entry.payload, Position(epoch, entry.offset, entry.tag), entry.kind)

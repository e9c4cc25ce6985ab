"""Read who is there, in the Django loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from asgiref.sync import sync_to_async

from ws4redis.broker.outgoing import options_of_channel
from ws4redis.broker.presence import Member, Roll
from ws4redis.publishing.audience import AudienceOptions, channels_of
from ws4redis.publishing.broker import current_broker


class Presence:
    """Tell who is subscribed to a channel.

    The audience is given as to ``RedisPublisher``, and must be a single channel; by default it is
    the broadcast. It costs nothing to make. Its methods raise ``ValueError`` for a facility without
    ``PRESENCE`` or another number of channels, and redis-py's ``ConnectionError`` when Redis cannot
    be reached. Each is two round trips.
    """

    def __init__(self, facility: str, **audience: Unpack[AudienceOptions]) -> None:
        self.facility = facility
        self._audience = audience

    def members(self) -> list[Member]:
        """Return who is there, in the order of their ids.

        A user is one member however many tabs he has open, and for ten seconds after the last of
        them has closed.
        """
        return _sorted(current_broker().rolls([self._channel()]))

    def count(self) -> int:
        """Return how many are there, which costs less than the members."""
        return current_broker().rolls([self._channel()], only_count=True)[0].size

    async def amembers(self) -> list[Member]:
        """Do as :meth:`members` without blocking the event loop."""
        return _sorted(await current_broker().arolls([await self._achannel()]))

    async def acount(self) -> int:
        """Do as :meth:`count` without blocking the event loop."""
        channels = [await self._achannel()]
        return (await current_broker().arolls(channels, only_count=True))[0].size

    def _channel(self) -> str:
        return _channel_of(self.facility, self._audience)

    async def _achannel(self) -> str:
        # Whom SELF means may have to be read from the session store or the database.
        return await sync_to_async(self._channel)()


def counts(facilities: Iterable[str], **audience: Unpack[AudienceOptions]) -> dict[str, int]:
    """Return for each of some facilities how many are there, in two round trips for all.

    The audience, and what is raised, is that of :class:`Presence`.
    """
    channels = _channels_by_facility(facilities, audience)
    rolls = current_broker().rolls(list(channels.values()), only_count=True)
    return _counts(channels, rolls)


async def acounts(facilities: Iterable[str], **audience: Unpack[AudienceOptions]) -> dict[str, int]:
    """Do as :func:`counts` without blocking the event loop."""
    channels = await sync_to_async(_channels_by_facility)(list(facilities), audience)
    rolls = await current_broker().arolls(list(channels.values()), only_count=True)
    return _counts(channels, rolls)


def _channels_by_facility(facilities: Iterable[str], audience: AudienceOptions) -> dict[str, str]:
    return {facility: _channel_of(facility, audience) for facility in facilities}


def _channel_of(facility: str, audience: AudienceOptions) -> str:
    channels = channels_of(facility, audience)
    if len(channels) != 1:
        raise ValueError(f'presence is that of one channel, not of {len(channels)}')
    if not options_of_channel(channels[0]).presence:
        raise ValueError(
            f'the facility {facility!r} has no presence; give it one by PRESENCE in '
            'WS4REDIS_FACILITIES'
        )
    return channels[0]


def _sorted(rolls: list[Roll]) -> list[Member]:
    return sorted(rolls[0].members, key=lambda member: member.id)


def _counts(channels: dict[str, str], rolls: list[Roll]) -> dict[str, int]:
    return {facility: roll.size for facility, roll in zip(channels, rolls, strict=True)}

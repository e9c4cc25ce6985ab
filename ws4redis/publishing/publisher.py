"""Publish and fetch messages in the Django loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ws4redis.broker.channels import Audience
from ws4redis.broker.publication import in_transaction, publication_commands
from ws4redis.publishing.store import SELF, RedisMessage, RedisStore

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')

__all__ = [
    'SELF',
    'RedisMessage',
    'RedisPublisher',
    'in_transaction',
    'publication_commands',
]

# What to look up for each audience that `fetch_message` is asked for.
AUDIENCES_OF_SELF: dict[str, dict[str, Any]] = {
    Audience.BROADCAST: {'broadcast': True},
    Audience.GROUP: {'groups': [SELF]},
    Audience.USER: {'users': [SELF]},
    Audience.SESSION: {'sessions': [SELF]},
    'any': {'broadcast': True, 'groups': [SELF], 'users': [SELF], 'sessions': [SELF]},
}


class RedisPublisher(RedisStore):
    """Publish messages on the channels of one facility, and fetch kept ones.

    ``facility`` names the communication channel, as in the websocket's URL. ``broadcast`` publishes
    to all; ``groups``, ``users`` and ``sessions`` are lists or tuples of names, model instances or
    ``SELF``, which means those of ``request``. Raise ``ValueError`` for anything else, for ``SELF``
    without a request, and for an audience without a facility. Without arguments, it is good for
    fetching.

    A publisher costs nothing to make: it opens no connection.
    """

    def __init__(
        self,
        *,
        facility: str | None = None,
        broadcast: bool = False,
        groups: list[Any] | tuple[Any, ...] = (),
        users: list[Any] | tuple[Any, ...] = (),
        sessions: list[Any] | tuple[Any, ...] = (),
        request: HttpRequest | None = None,
    ) -> None:
        super().__init__()
        self._facility_without_audience: str | None = None
        if facility is None:
            if broadcast or groups or users or sessions:
                raise ValueError('an audience needs a facility to publish on')
            return
        if not (broadcast or groups or users or sessions):
            self._facility_without_audience = facility
        self._publishers.update(
            self._get_message_channels(
                request=request,
                facility=facility,
                broadcast=broadcast,
                groups=groups,
                users=users,
                sessions=sessions,
            )
        )

    def _publish(self, message: object, expire: int | None, *, transaction: bool) -> None:
        if self._facility_without_audience is not None and not self._publishers:
            logger.warning(
                'not published: the publisher of %r has no audience; give it broadcast=True, or '
                'users, groups or sessions',
                self._facility_without_audience,
            )
        super()._publish(message, expire, transaction=transaction)

    def pipeline_publish_message(
        self,
        message: object,
        expire: int | None = None,
        transaction: bool = True,  # noqa: FBT001, FBT002 - the signature that users know
    ) -> None:
        """Do the same as ``publish_message``.

        Without ``transaction`` Redis may run commands of others in between.
        """
        self._publish(message, expire, transaction=transaction)

    def fetch_message(
        self, request: HttpRequest | None, facility: str, audience: str = 'any'
    ) -> bytes | None:
        """Return the message that is kept for a request on a facility, or None.

        ``audience`` is ``broadcast``, ``group``, ``user``, ``session`` or ``any``, which looks in
        the order session, user, group, broadcast. Without a request, or a user, or a session, there
        is nothing in their channels. Raise ``ValueError`` for another audience, and redis-py's
        ``ConnectionError`` when Redis cannot be reached. It is one round trip.
        """
        try:
            wanted = AUDIENCES_OF_SELF[audience]
        except KeyError:
            choices = ', '.join(AUDIENCES_OF_SELF)
            raise ValueError(f'audience must be one of {choices}, not {audience!r}') from None
        if request is None:
            wanted = {'broadcast': wanted.get('broadcast', False)}
        keys = self._get_message_channels(request=request, facility=facility, **wanted)
        kept = self._broker.fetch(keys)
        return next((message for message in kept if message is not None), None)

"""Publish and fetch messages in the Django loop."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder
from django.template.loader import render_to_string

from ws4redis.broker.channels import Audience
from ws4redis.broker.history import Kind
from ws4redis.broker.outgoing import Outgoing
from ws4redis.broker.publication import in_transaction, publication_commands
from ws4redis.publishing.broker import Positions
from ws4redis.publishing.commit import aon_database_commit, waits_for_commit
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


class PublishOptions(TypedDict, total=False):
    """The options of all methods that publish; see ``publish_message``."""

    on_commit: bool | None
    using: str | None
    idempotency_key: str | None


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

    def _outgoing(
        self,
        message: object,
        expire: int | None,
        *,
        kind: Kind = Kind.TEXT,
        once: str | None = None,
    ) -> Outgoing | None:
        if self._facility_without_audience is not None and not self._publishers:
            logger.warning(
                'not published: the publisher of %r has no audience; give it broadcast=True, or '
                'users, groups or sessions',
                self._facility_without_audience,
            )
        return super()._outgoing(message, expire, kind=kind, once=once)

    def pipeline_publish_message(
        self,
        message: object,
        expire: int | None = None,
        transaction: bool = True,  # noqa: FBT001, FBT002 - the signature that users know
    ) -> Positions:
        """Do the same as ``publish_message``.

        Without ``transaction`` Redis may run commands of others in between.
        """
        outgoing = self._outgoing(message, expire)
        return self._publish(outgoing, on_commit=None, using=None, transaction=transaction)

    def publish_json(
        self, value: object, expire: int | None = None, **options: Unpack[PublishOptions]
    ) -> Positions:
        """Publish a value as JSON; dates, decimals and UUIDs are written as Django does it.

        Clients that speak the client protocol get a value, plain websockets get its text. The
        other arguments, and what is returned and raised, are those of :meth:`publish_message`;
        ``TypeError`` is raised for a value that JSON cannot hold, ``ValueError`` for such a number.
        """
        return self._publish_as(json_text(value), expire, Kind.JSON, options)

    def publish_html(
        self,
        template: str | Sequence[str],
        context: Mapping[str, Any] | None = None,
        request: HttpRequest | None = None,
        expire: int | None = None,
        **options: Unpack[PublishOptions],
    ) -> Positions:
        """Render a template as ``render_to_string`` does, and publish the result.

        The template must not depend on who reads the result: one rendering goes to all.
        """
        html = render_to_string(template, _as_dict(context), request)
        return self._publish_as(html, expire, Kind.TEXT, options)

    async def apublish_message(
        self, message: object, expire: int | None = None, **options: Unpack[PublishOptions]
    ) -> Positions:
        """Do as :meth:`publish_message` without blocking the event loop."""
        return await self._apublish_as(message, expire, Kind.TEXT, options)

    async def apublish_json(
        self, value: object, expire: int | None = None, **options: Unpack[PublishOptions]
    ) -> Positions:
        """Do as :meth:`publish_json` without blocking the event loop."""
        return await self._apublish_as(json_text(value), expire, Kind.JSON, options)

    async def apublish_html(
        self,
        template: str | Sequence[str],
        context: Mapping[str, Any] | None = None,
        request: HttpRequest | None = None,
        expire: int | None = None,
        **options: Unpack[PublishOptions],
    ) -> Positions:
        """Do as :meth:`publish_html` without blocking the event loop; the rendering may query."""
        html = await sync_to_async(render_to_string)(template, _as_dict(context), request)
        return await self._apublish_as(html, expire, Kind.TEXT, options)

    def _publish_as(
        self, message: object, expire: int | None, kind: Kind, options: PublishOptions
    ) -> Positions:
        once = options.get('idempotency_key')
        outgoing = self._outgoing(message, expire, kind=kind, once=once)
        return self._publish(
            outgoing, on_commit=options.get('on_commit'), using=options.get('using')
        )

    async def _apublish_as(
        self, message: object, expire: int | None, kind: Kind, options: PublishOptions
    ) -> Positions:
        once = options.get('idempotency_key')
        outgoing = self._outgoing(message, expire, kind=kind, once=once)
        if outgoing is None:
            return {}
        broker = self._broker
        if waits_for_commit(options.get('on_commit')):
            publish = partial(broker.publish, outgoing, transaction=True)
            await aon_database_commit(publish, using=options.get('using'))
            return {}
        return await broker.apublish(outgoing)

    def fetch_message(
        self, request: HttpRequest | None, facility: str, audience: str = 'any'
    ) -> bytes | None:
        """Return the message that is kept for a request on a facility, or None.

        ``audience`` is ``broadcast``, ``group``, ``user``, ``session`` or ``any``, which looks in
        the order session, user, group, broadcast. Without a request, or a user, or a session, there
        is nothing in their channels. Raise ``ValueError`` for another audience, and redis-py's
        ``ConnectionError`` when Redis cannot be reached. It is one round trip.
        """
        return _first(self._broker.fetch(self._keys_to_fetch(request, facility, audience)))

    async def afetch_message(
        self, request: HttpRequest | None, facility: str, audience: str = 'any'
    ) -> bytes | None:
        """Do as :meth:`fetch_message` without blocking the event loop."""
        # Whom SELF means may have to be read from the session store or the database.
        keys = await sync_to_async(self._keys_to_fetch)(request, facility, audience)
        return _first(await self._broker.afetch(keys))

    def _keys_to_fetch(
        self, request: HttpRequest | None, facility: str, audience: str
    ) -> list[str]:
        try:
            wanted = AUDIENCES_OF_SELF[audience]
        except KeyError:
            choices = ', '.join(AUDIENCES_OF_SELF)
            raise ValueError(f'audience must be one of {choices}, not {audience!r}') from None
        if request is None:
            wanted = {'broadcast': wanted.get('broadcast', False)}
        return self._get_message_channels(request=request, facility=facility, **wanted)


def json_text(value: object) -> str:
    """Return a value as compact JSON; dates, decimals and UUIDs as Django writes them.

    Raise ``ValueError`` for ``NaN`` and infinite numbers, which no browser takes for JSON.
    """
    encode = partial(json.dumps, cls=DjangoJSONEncoder, separators=(',', ':'), allow_nan=False)
    text = encode(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # File names may hold what UTF-8 cannot; escaped, they do.
        return encode(value)
    return text


def _as_dict(context: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if context is None else dict(context)


def _first(kept: Iterable[bytes | None]) -> bytes | None:
    return next((message for message in kept if message is not None), None)

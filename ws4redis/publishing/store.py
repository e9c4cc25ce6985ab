"""What the publisher and the subscriber have in common: messages, audiences, publishing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import redis
from django.utils.functional import Promise

from ws4redis.broker.channels import channel_names
from ws4redis.broker.history import Kind
from ws4redis.broker.outgoing import Outgoing, require_histories
from ws4redis.conf import conf
from ws4redis.publishing.broker import Broker, Positions, RedisBroker, current_broker
from ws4redis.publishing.commit import on_database_commit, waits_for_commit
from ws4redis.publishing.identity import (
    groups_of,
    name_of_group,
    name_of_session,
    name_of_user,
    sessions_of,
    users_of,
)

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')

# An idempotency key is a part of a key in Redis.
MAX_KEY_LENGTH = 200
# A lifetime; the next larger numbers are milliseconds, or mistakes.
MAX_EXPIRE_SECONDS = 2**31 - 1
# The kinds of replies of Redis's pub/sub that carry a message, which comes last in each.
MESSAGE_KINDS = frozenset({b'message', b'pmessage', b'smessage', 'message', 'pmessage', 'smessage'})


class SelfReference:
    """The type of ``SELF``; there is one instance."""

    def __repr__(self) -> str:
        return 'SELF'

    def __reduce__(self) -> str:
        # A copy, or what was unpickled, is the same object.
        return 'SELF'


SELF: Final = SelfReference()
"""In a list of users, groups or sessions: those of the request."""


class RedisMessage(bytes):
    """A message as it passes through Redis: bytes that are not the heartbeat.

    Built from ``str`` (as UTF-8), bytes, bytearray or memoryview, or from a reply of Redis's
    pub/sub like ``[b'message', channel, data]``. Built from the heartbeat string, or from what
    carries no message, such as None or the confirmation of a subscription, it is None. An empty
    string is a message.
    """

    __slots__ = ()

    def __new__(cls, value: object) -> RedisMessage | None:  # type: ignore[misc]  # see above
        match value:
            case str():
                data = value.encode()
            case bytes() | bytearray() | memoryview():
                data = bytes(value)
            case [kind, *_, inner] if isinstance(kind, str | bytes) and kind in MESSAGE_KINDS:
                return cls(inner) if isinstance(inner, str | bytes | bytearray) else None
            case _:
                return None
        heartbeat = conf.WS4REDIS_HEARTBEAT
        if heartbeat is not None and data == heartbeat.encode():
            return None
        return super().__new__(cls, data)


class RedisStore:
    """Publish on a set of channels; the base of ``RedisPublisher`` and ``RedisSubscriber``.

    ``connection`` is a ``redis.Redis``; without it, the client that all share.

    Subclasses may change ``_publishers``, the set of the names of the channels that are published
    on.
    """

    # For how many seconds messages are kept by default; None: as the settings say.
    _expire: int | None = None

    def __init__(self, connection: redis.Redis | None = None) -> None:
        self._own_connection = connection
        self._publishers: set[str] = set()

    @property
    def _broker(self) -> Broker:
        own = self._own_connection
        return current_broker() if own is None else RedisBroker(own)

    @property
    def _connection(self) -> redis.Redis:
        return self._broker.client

    @_connection.setter
    def _connection(self, connection: redis.Redis) -> None:
        # Subclasses written for 0.6 set it in their __init__().
        self._own_connection = connection

    @staticmethod
    def get_prefix() -> str:
        """Return the prefix of all channels' names, with its colon; empty when there is none."""
        return conf.key_prefix

    def publish_message(
        self,
        message: object,
        expire: int | None = None,
        *,
        on_commit: bool | None = None,
        using: str | None = None,
        idempotency_key: str | None = None,
    ) -> Positions:
        """Publish a message on all channels of this store, and keep it under each.

        ``message`` is a ``RedisMessage``, ``str`` or bytes-like. ``expire`` is the number of
        seconds for which it is kept; 0 or less: not at all, None: as ``KEEP`` of the facility or
        ``WS4REDIS_EXPIRE`` says. It is one round trip to Redis, and Redis does all of it or
        nothing.

        With ``on_commit`` the message is published when the transaction of the database ``using``
        commits, and not at all when it is rolled back; None: as ``WS4REDIS_ON_COMMIT`` says. With
        an ``idempotency_key`` it is published once within five minutes, however often this is
        called; the facility needs a history for that.

        Return the message's position on each channel that has a history; nothing while the message
        waits for a commit. Raise ``ValueError`` for a message or an ``expire`` of another type, and
        redis-py's ``ConnectionError`` when Redis cannot be reached.
        """
        outgoing = self._outgoing(message, expire, once=idempotency_key)
        return self._publish(outgoing, on_commit=on_commit, using=using)

    def _outgoing(
        self,
        message: object,
        expire: int | None,
        *,
        kind: Kind = Kind.TEXT,
        once: str | None = None,
    ) -> Outgoing | None:
        """Return what is to be published; None if it is nothing, which is logged."""
        payload = _payload_of(message)
        expire = _checked_expire(self._expire if expire is None else expire)
        _require_key(once)
        if payload is None:
            return None
        if not self._publishers:
            return None
        channels = tuple(sorted(map(_text_of_name, self._publishers)))
        if once is not None:
            # Now, since what is found at the commit of a transaction is logged at most.
            require_histories(channels)
        return Outgoing(channels, payload, kind, expire, once)

    def _publish(
        self,
        outgoing: Outgoing | None,
        *,
        on_commit: bool | None,
        using: str | None,
        transaction: bool = True,
    ) -> Positions:
        if outgoing is None:
            return {}
        publish = partial(self._broker.publish, outgoing, transaction=transaction)
        if waits_for_commit(on_commit):
            on_database_commit(publish, using=using)
            return {}
        return publish()

    def _get_message_channels(
        self,
        request: HttpRequest | None = None,
        facility: str = '{facility}',
        *,
        broadcast: bool = False,
        groups: list[Any] | tuple[Any, ...] = (),
        users: list[Any] | tuple[Any, ...] = (),
        sessions: list[Any] | tuple[Any, ...] = (),
    ) -> list[str]:
        """Return the names of the channels of some audiences, prefix included, each once.

        ``groups``, ``users`` and ``sessions`` hold names, ``SELF``, or the objects themselves.
        ``SELF`` adds no channel when nobody is logged in, or when there is no session. Raise
        ``ValueError`` for anything but lists and tuples of these, and for ``SELF`` without a
        request.
        """
        return channel_names(
            facility,
            broadcast=broadcast,
            users=list(_names('users', users, request)),
            groups=list(_names('groups', groups, request)),
            sessions=list(_names('sessions', sessions, request)),
            prefix=self.get_prefix(),
        )


def _payload_of(message: object) -> bytes | None:
    """Return what is to be published, or None for a heartbeat."""
    if not isinstance(message, str | bytes | bytearray | memoryview):
        raise ValueError(
            f'message must be a RedisMessage, str or bytes-like, not {type(message).__name__}'
        )
    payload: bytes | None = RedisMessage(message)
    if payload is None:
        logger.warning('not published: the message is the string of WS4REDIS_HEARTBEAT')
    return payload


def _text_of_name(channel: str | bytes) -> str:
    return channel if isinstance(channel, str) else channel.decode(errors='surrogateescape')


def _checked_expire(expire: object) -> int | None:
    if expire is None:
        return None
    if not isinstance(expire, int) or isinstance(expire, bool):
        raise ValueError(f'expire must be a number of whole seconds or None, not {expire!r}')
    if expire > MAX_EXPIRE_SECONDS:
        # Redis would refuse it when the message is in the history already.
        raise ValueError(f'expire must be at most {MAX_EXPIRE_SECONDS} seconds, not {expire!r}')
    # Less than 0 switches it off, as in 0.6.
    return max(expire, 0)


def _require_key(once: object) -> None:
    if not (once is None or (isinstance(once, str) and 0 < len(once) <= MAX_KEY_LENGTH)):
        raise ValueError(
            f'idempotency_key must be a string of 1 to {MAX_KEY_LENGTH} characters, not {once!r}'
        )


# Who is meant by SELF, and by the items of the three lists


def _names(audience: str, items: object, request: HttpRequest | None) -> Iterator[str]:
    if not isinstance(items, list | tuple):
        raise ValueError(f'{audience} must be a list or a tuple, not {type(items).__name__}')
    for item in items:
        if item is not SELF:
            yield _name(audience, item)
        elif request is None:
            raise ValueError(f'{audience} holds SELF, which needs a request')
        else:
            yield from NAMES_OF_SELF[audience](request)


def _name(audience: str, item: object) -> str:
    name = item
    if not isinstance(item, str | Promise):
        name = NAME_OF_OBJECT[audience](item)
    if not isinstance(name, str | Promise):
        raise ValueError(f'{audience} must hold names or SELF, not {item!r}')
    return str(name)


NAMES_OF_SELF = {'users': users_of, 'groups': groups_of, 'sessions': sessions_of}
NAME_OF_OBJECT = {
    'users': name_of_user,
    'groups': name_of_group,
    'sessions': name_of_session,
}

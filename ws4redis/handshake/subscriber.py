"""The subscriber: which channels a websocket subscribes to, and on which it publishes.

One subscriber is made per websocket, at its handshake. The stock class only names channels; the
subscribing itself is done by the websocket loop, over the one connection of the process. A subclass
(setting ``WS4REDIS_SUBSCRIBER``) may override any method; those of its methods that the loop calls
run in the pool, so they may block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from redis.client import PubSub

from ws4redis.broker.channels import facility_of
from ws4redis.conf import conf
from ws4redis.publishing.store import SELF, RedisMessage, RedisStore
from ws4redis.settings.hooks import call

if TYPE_CHECKING:
    import redis
    from django.http import HttpRequest


logger = logging.getLogger('ws4redis')


class WebSocketProxy(Protocol):
    """What :meth:`RedisSubscriber.send_persisted_messages` may do with a websocket."""

    @property
    def closed(self) -> bool: ...

    def send(
        self,
        message: str | bytes,
        binary: bool | None = None,  # noqa: FBT001 - the signature that users know
    ) -> None: ...

    def close(self, code: int = 1000, message: str | bytes = '') -> None: ...


class Subscription:
    """The names of the channels that one websocket subscribes to.

    It stands for redis-py's ``PubSub``, but has no connection: the websocket loop has one for all.
    Only code that asks for what takes a connection of its own (:attr:`connection`,
    :meth:`psubscribe`, :meth:`parse_response`, …) makes it have one, and then all that is
    subscribed to comes by that.
    """

    def __init__(self, connection: Callable[[], redis.Redis]) -> None:
        self._connection = connection
        self._names: dict[str, None] = {}
        self._pubsub: Any = None
        self._follow: Callable[[list[str], list[str]], object] | None = None

    @property
    def channels(self) -> dict[bytes, None]:
        """The names as redis-py's ``PubSub.channels`` has them: encoded, as keys."""
        return {name.encode(): None for name in self._names}

    @property
    def patterns(self) -> dict[bytes, Any]:
        return {} if self._pubsub is None else self._pubsub.patterns

    @property
    def subscribed(self) -> bool:
        return bool(self._names or self.patterns)

    @property
    def connection(self) -> Any:
        """The connection of its own; made when it is asked for before the loop has subscribed."""
        if self._pubsub is None and (self._follow is not None or not self._names):
            return None
        return self._connected_pubsub().connection

    @property
    def names(self) -> list[str]:
        return list(self._names)

    @property
    def has_own_connection(self) -> bool:
        return self._pubsub is not None

    def subscribe(self, *names: str | bytes) -> None:
        """Add channels; while the websocket is open, too."""
        added = [name for name in _decoded(names) if name not in self._names]
        self._names.update(dict.fromkeys(added))
        if self._pubsub is not None and added:
            self._pubsub.subscribe(*added)
        elif self._follow is not None and added:
            self._follow(added, [])

    def unsubscribe(self, *names: str | bytes) -> None:
        """Remove channels, all of them when none is named."""
        removed = [name for name in _decoded(names) or self.names if name in self._names]
        for name in removed:
            del self._names[name]
        if self._pubsub is not None and removed:
            self._pubsub.unsubscribe(*removed)
        elif self._follow is not None and removed:
            self._follow([], removed)

    def psubscribe(self, *patterns: str | bytes, **handlers: Any) -> None:
        """Subscribe to patterns, by a connection of its own: the loop knows channels only."""
        self._connected_pubsub().psubscribe(*patterns, **handlers)

    def reset(self) -> None:
        """Leave all channels, and give an own connection back."""
        self.unsubscribe()
        self._drop_connection()

    def __getattr__(self, name: str) -> Any:
        # What else a PubSub has: it takes a connection.
        if name.startswith('_'):
            raise AttributeError(name)
        return getattr(self._connected_pubsub(), name)

    def follow(self, function: Callable[[list[str], list[str]], object]) -> None:
        """Call ``function(added, removed)`` at each change from now on."""
        self._follow = function

    def get_file_descriptor(self) -> int:
        """Connect to Redis, if that was not done yet, and return the socket's descriptor."""
        return _descriptor_of(self._connected_pubsub())

    def parse_response(self) -> Any:
        """Wait for the next reply of an own connection, and return it."""
        return self._connected_pubsub().parse_response()

    def has_more(self) -> bool:
        """Tell whether :meth:`parse_response` would return at once, by an own connection."""
        return self._pubsub is not None and has_more(self._pubsub)

    def close(self) -> None:
        self._follow = None
        self._drop_connection()

    def _drop_connection(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None

    def _connected_pubsub(self) -> Any:
        if self._pubsub is None:
            self._pubsub = self._connection().pubsub()  # type: ignore[no-untyped-call]
            if self._names:
                self._pubsub.subscribe(*self._names)
            else:
                # There is no method to connect; this command changes nothing.
                self._pubsub.unsubscribe()
        return self._pubsub


def has_own_connection(subscriber: Any) -> bool:
    """Tell whether a subscriber gets its messages by a connection of its own, not by the loop."""
    subscription = getattr(subscriber, '_subscription', None)
    if isinstance(subscription, Subscription):
        return subscription.has_own_connection
    # A PubSub of redis-py: the loop takes channels over, but not patterns.
    return bool(getattr(subscription, 'patterns', None))


def publishers_of(subscriber: Any) -> tuple[str, ...]:
    """Return the channels that a websocket's messages are published on."""
    return tuple(sorted(getattr(subscriber, '_publishers', ())))


def release(subscriber: Any) -> None:
    """Release a subscriber; log what goes wrong, since it is over for it in any case."""
    try:
        call('release()', subscriber.release)
    except (Exception, SystemExit):
        logger.exception('release() of %s failed', type(subscriber).__name__)


def subscription_of(subscriber: Any) -> Any:
    """Return what a subscriber reads: its ``_subscription``, or a ``PubSub`` of another name."""
    if hasattr(subscriber, '_subscription'):
        return subscriber._subscription
    pubsubs = [value for value in vars(subscriber).values() if isinstance(value, PubSub)]
    return pubsubs[0] if len(pubsubs) == 1 else None


def has_more(subscription: Any) -> bool:
    """Tell whether a ``Subscription``, or redis-py's ``PubSub``, has a reply that has arrived."""
    if isinstance(subscription, Subscription):
        return subscription.has_more()
    connection = getattr(subscription, 'connection', None)
    return connection is not None and bool(connection.can_read(timeout=0))


def _descriptor_of(pubsub: Any) -> int:
    fd: int = pubsub.connection._sock.fileno()
    return fd


def _decoded(names: Iterable[str | bytes]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in names]


class RedisSubscriber(RedisStore):
    """Name the channels of one websocket.

    ``connection`` is a ``redis.Redis``, for methods that talk to Redis themselves.

    ``subscription_channels`` and ``publish_channels`` list the options of a websocket's URL that
    are understood; others are ignored.
    """

    subscription_channels = [
        'subscribe-session',
        'subscribe-group',
        'subscribe-user',
        'subscribe-broadcast',
    ]
    publish_channels = [
        'publish-session',
        'publish-group',
        'publish-user',
        'publish-broadcast',
    ]

    def __init__(self, connection: redis.Redis | None = None) -> None:
        super().__init__(connection)
        self.request: HttpRequest | None = None
        self._subscription: Any = Subscription(lambda: self._connection)

    def set_pubsub_channels(self, request: HttpRequest, channels: Iterable[str]) -> None:
        """Set what to subscribe to and where to publish.

        ``channels`` are the options of the websocket's URL that are permitted, such as
        ``'subscribe-broadcast'``. Subclasses may call this, then add channels by
        ``self._subscription.subscribe(name)`` and change the set ``self._publishers``.
        """
        self.request = request
        options = set(channels)
        facility = facility_of(request.path_info, conf.WEBSOCKET_URL)
        self._publishers = set(self._channels_of('publish', options, request, facility))
        for name in self._channels_of('subscribe', options, request, facility):
            self._subscription.subscribe(name)

    def _channels_of(
        self, verb: str, options: set[str], request: HttpRequest, facility: str
    ) -> Iterator[str]:
        def whose(audience: str) -> list[Any]:
            return [SELF] if f'{verb}-{audience}' in options else []

        yield from self._get_message_channels(
            request=request,
            facility=facility,
            broadcast=f'{verb}-broadcast' in options,
            users=whose('user'),
            groups=whose('group'),
            sessions=whose('session'),
        )

    def send_persisted_messages(self, websocket: WebSocketProxy) -> None:
        """Send the kept message of each channel.

        For websockets whose class does not override it, the loop does the same itself.
        """
        for name in self._subscription.channels:
            message = RedisMessage(self._connection.get(name))
            if message is not None:
                websocket.send(message)

    def send_persited_messages(self, websocket: WebSocketProxy) -> None:
        """Old spelling of :meth:`send_persisted_messages`."""
        self.send_persisted_messages(websocket)

    def get_file_descriptor(self) -> int | None:
        """Return the descriptor that is readable when :meth:`parse_response` has something.

        A subclass that overrides both brings in messages from elsewhere. The stock methods open a
        pub/sub connection of this subscriber's own; the loop does not call them.
        """
        subscription = self._subscription
        if isinstance(subscription, Subscription):
            return subscription.get_file_descriptor()
        return _descriptor_of(subscription)

    def parse_response(self) -> Any:
        """Return the next reply, such as ``[b'message', channel, data]``."""
        return self._subscription.parse_response()

    def release(self) -> None:
        """Let go of whatever this subscriber holds. Called once, when the websocket is closed."""
        self._subscription.close()

"""The subscriptions of one connection: asking the policy, joining, leaving.

A client knows channels by names of its own; see ``broker/client_names.py``. Several names may lead
to one channel, of which a connection uses one at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ws4redis.broker.client_names import ClientName, client_name
from ws4redis.broker.history import Kind, Position
from ws4redis.broker.tokens import PositionsToken
from ws4redis.hub.channel import Delay, Joined, Outcome
from ws4redis.hub.clients.subscription import Subscription, SubscriptionState
from ws4redis.hub.clients.wire import ClientWire, encoded, encoded_as_text, form_of
from ws4redis.hub.history_channel import HistoryChannel
from ws4redis.hub.publication import Publication
from ws4redis.protocol.client.codes import ErrorCode, UnsubscribeCode
from ws4redis.protocol.client.commands import SubRefreshRequest, SubscribeRequest
from ws4redis.protocol.client.replies import (
    Raw,
    encode_error_code,
    encode_publication_push,
    encode_reply,
    encode_unsubscribe,
)

if TYPE_CHECKING:
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.hub.clients.project import Grant

logger = logging.getLogger('ws4redis')

# No channel has such an epoch, so what a client names in a wrong way is a gap.
NOWHERE = Position('?', 0)

Subs = Mapping[str, dict[str, Any]]


class Subscriptions:
    """Subscribe and unsubscribe a connection."""

    __slots__ = ('_by_name', '_connection')

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._by_name: dict[str, Subscription] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._by_name.values()))

    def get(self, name: str) -> Subscription | None:
        """Return the subscription under a name of the client's."""
        return self._by_name.get(name)

    def of_channel(self, channel: str) -> Subscription | None:
        """Return the subscription to a channel, given by its name in Redis."""
        prefix = self._connection.service.options.prefix
        for is_short in (False, True):
            name = client_name(channel, prefix=prefix, is_short=is_short)
            subscription = self._by_name.get(name)
            if subscription is not None and subscription.channel == channel:
                return subscription
        return None

    # Subscribing

    def subscribe(self, number: int, request: SubscribeRequest) -> None:
        """Do a command of the client."""
        connection = self._connection
        service = connection.service
        try:
            name = service.parse_name(request.channel)
        except ValueError:
            connection.fail(number, ErrorCode.BAD_REQUEST)
            return
        channel = service.channel_of(connection.visitor, name)
        if channel is None:
            connection.fail(number, ErrorCode.PERMISSION_DENIED)
            return
        present = self.of_channel(channel)
        if present is not None and not present.is_settled:
            present.when_settled(lambda: self.subscribe(number, request))
        elif present is not None:
            connection.fail(number, ErrorCode.ALREADY_SUBSCRIBED)
        elif len(self._by_name) >= service.options.max_channels:
            if service.may_log('channels'):
                logger.warning(
                    '%r exceeds WS4REDIS_MAX_CHANNELS_PER_CONNECTION: it is refused more channels',
                    connection.websocket,
                )
            connection.fail(number, ErrorCode.LIMIT_EXCEEDED)
        else:
            subscription = Subscription(request.channel, channel, wants_joins=request.join_leave)
            self._by_name[request.channel] = subscription
            self._ask(number, request, name, subscription)

    def _ask(
        self, number: int, request: SubscribeRequest, name: ClientName, subscription: Subscription
    ) -> None:
        connection = self._connection

        def answer(grant: Grant | None, error: BaseException | None) -> None:
            is_allowed = grant is not None and grant.is_allowed and not subscription.is_revoked
            if error is not None or grant is None or not is_allowed:
                connection.fail(number, error or ErrorCode.PERMISSION_DENIED)
                self._drop(subscription)
            else:
                self._join(number, request, name, subscription, grant)

        project = connection.service.project
        grant = project.decide(connection.visitor, 'subscribe', name, request.token)
        if grant is not None:
            answer(grant, None)
        else:
            arguments = (connection.visitor, 'subscribe', name, request.token)
            connection.call('the policy', answer, project.may, *arguments)

    def _join(
        self,
        number: int,
        request: SubscribeRequest,
        name: ClientName,
        subscription: Subscription,
        grant: Grant,
    ) -> None:
        connection = self._connection

        def joined(joined: Joined) -> None:
            if joined.outcome is Outcome.LEFT or not connection.is_alive:
                return
            if subscription.is_revoked:
                connection.fail(number, ErrorCode.PERMISSION_DENIED)
                self.leave(subscription)
                return
            is_recovered = _is_recovered(request, joined)
            if request.rejects_unrecovered and request.recover and not is_recovered:
                # It would be told to come without a position, which it does then.
                connection.fail(number, ErrorCode.UNRECOVERABLE_POSITION)
                self.leave(subscription)
                return
            result = self.result_of(subscription, request, joined)
            result.update(self.expiry(subscription, grant))
            connection.reply(number, 'subscribe', result)
            if subscription.wants_joins:
                connection.service.presence.watch(connection, subscription)
            subscription.settle(SubscriptionState.SUBSCRIBED)

        def delayed(why: Delay) -> None:
            if not subscription.is_settled and connection.is_alive:
                connection.send(encode_error_code(number, ErrorCode.INTERNAL))
                connection.service.loop.call_soon(self.leave, subscription)

        self._enter(name, subscription, request, joined, delayed)

    def _enter(
        self,
        name: ClientName | None,
        subscription: Subscription,
        request: SubscribeRequest | None,
        joined: Callable[[Joined], object],
        delayed: Callable[[Delay], object],
    ) -> None:
        connection = self._connection
        subscription.state = SubscriptionState.JOINING
        if name is not None:
            self._use_form(name)
        since = None if request is None else _position_in(request, subscription.channel)
        connection.service.hub.join(
            connection.websocket, subscription.channel, joined, since=since, delayed=delayed
        )

    def result_of(
        self, subscription: Subscription, request: SubscribeRequest | None, joined: Joined
    ) -> dict[str, Any]:
        """Return what a client is told of a channel that it has joined."""
        channel = self._connection.service.hub.bus.get(subscription.channel)
        # Redis keeps a message without its kind; a history has it.
        kind = channel.kind if isinstance(channel, HistoryChannel) else Kind.TEXT
        return _result(request, joined, kind, as_text=self._connection.is_classic)

    def _use_form(self, name: ClientName) -> None:
        form = form_of(name)
        wire = self._connection.websocket.wire
        if form is not None and isinstance(wire, ClientWire):
            self._connection.service.hub.rewire(self._connection.websocket, wire.with_form(form))

    def expiry(self, subscription: Subscription, grant: Grant) -> dict[str, Any]:
        """Note when a subscription ends, and return what the client is told about it."""
        service = self._connection.service
        if subscription.timer is not None:
            service.loop.timers.cancel(subscription.timer)
            subscription.timer = None
        if grant.expires is None:
            return {}
        seconds = service.seconds_until(grant.expires)
        subscription.timer = service.loop.call_later(
            seconds + service.options.expiry_grace_seconds,
            self.end,
            subscription,
            UnsubscribeCode.EXPIRED,
        )
        return {'expires': True, 'ttl': max(1, round(seconds))}

    def refresh(self, number: int, request: SubRefreshRequest) -> None:
        """Let a subscription last longer, by another token."""
        connection = self._connection
        subscription = self._by_name.get(request.channel)
        if subscription is None or not subscription.is_subscribed:
            connection.fail(number, ErrorCode.BAD_REQUEST)
            return
        name = connection.service.parse_name(request.channel)

        def answer(grant: Grant | None, error: BaseException | None) -> None:
            if error is not None or grant is None or not grant.is_allowed:
                connection.fail(number, error or ErrorCode.PERMISSION_DENIED)
            elif subscription.is_subscribed:
                connection.reply(number, 'sub_refresh', self.expiry(subscription, grant))
            else:
                connection.fail(number, ErrorCode.BAD_REQUEST)

        arguments = (connection.visitor, 'subscribe', name, request.token)
        connection.call('the policy', answer, connection.service.project.may, *arguments)

    # Subscriptions by the server

    def join_server_side(
        self,
        names: Iterable[str],
        channels: Iterable[str],
        requests: Mapping[str, SubscribeRequest],
        done: Done,
    ) -> None:
        """Join the channels to which the server subscribes the client; then call ``done``.

        ``names`` are as clients give them, ``channels`` full ones.
        """
        connection = self._connection
        service = connection.service
        connecting = _Connecting(connection, done)
        entering: list[tuple[ClientName | None, Subscription, SubscribeRequest | None]] = []
        prefix = service.options.prefix
        named = [(service.parse_name(text), text) for text in names]
        wanted: list[tuple[ClientName | None, str, str | None]] = [
            *((name, text, service.channel_of(connection.visitor, name)) for name, text in named),
            *((None, client_name(channel, prefix=prefix), channel) for channel in channels),
        ]
        for name, text, channel in wanted:
            if channel is None or self.of_channel(channel) is not None:
                logger.debug('%r has no channel %r', connection.websocket, text)
                continue
            subscription = Subscription(text, channel, is_server_side=True)
            self._by_name[text] = subscription
            request = requests.get(text) or self._request_of_url(subscription)
            entering.append((name, subscription, request))
        connecting.remaining = len(entering)
        if entering:
            # No client knows what to do with a publication before it is told of the channel.
            connection.websocket.hold()
        for name, subscription, request in entering:
            self._enter(
                name,
                subscription,
                request,
                partial(connecting.joined, subscription, request),
                partial(connecting.delayed, subscription),
            )
        if not entering:
            done({})

    def _request_of_url(self, subscription: Subscription) -> SubscribeRequest | None:
        """Return what the connection's URL says of a channel, None where it says nothing."""
        request = SubscribeRequest(subscription.name, data={'since': self._connection.since})
        return None if _position_in(request, subscription.channel) is None else request

    # Unsubscribing

    def unsubscribe(self, number: int, name: str) -> None:
        """Do a command of the client."""
        subscription = self._by_name.get(name)
        if subscription is not None and not subscription.is_settled:
            subscription.when_settled(lambda: self.unsubscribe(number, name))
            return
        if subscription is not None:
            self.leave(subscription)
        self._connection.send(encode_reply(number, 'unsubscribe', {}))

    def end(self, subscription: Subscription, code: int, reason: str = '') -> None:
        """End a subscription from the server's side, and tell the client."""
        if not subscription.is_settled:
            subscription.when_settled(lambda: self.end(subscription, code, reason))
        elif subscription.is_subscribed:
            self.leave(subscription)
            self._connection.send(encode_unsubscribe(subscription.name, code, reason))

    def revoke(self, subscription: Subscription, code: int, reason: str = '') -> None:
        """End a subscription to which the client has no right any more, and tell it.

        One that is under way was granted before: it fails, whatever Redis has kept for it.
        """
        if subscription.is_settled:
            self.end(subscription, code, reason)
        else:
            subscription.is_revoked = True

    def leave(self, subscription: Subscription) -> None:
        """Leave the channel of a subscription, and forget it; the client is told nothing."""
        if self._forget(subscription):
            hub = self._connection.service.hub
            hub.leave(self._connection.websocket, [subscription.channel])
            # Only now: what has waited for this may join the channel again.
            subscription.settle(SubscriptionState.ENDED)

    def _drop(self, subscription: Subscription) -> None:
        """Forget a subscription that has not come to join its channel."""
        if self._forget(subscription):
            subscription.settle(SubscriptionState.ENDED)

    def _forget(self, subscription: Subscription) -> bool:
        """Forget a subscription; tell whether it was known."""
        if self._by_name.get(subscription.name) is not subscription:
            return False
        del self._by_name[subscription.name]
        self._cancel(subscription)
        return True

    def _cancel(self, subscription: Subscription) -> None:
        if subscription.wants_joins:
            self._connection.service.presence.unwatch(subscription)
        if subscription.timer is not None:
            self._connection.service.loop.timers.cancel(subscription.timer)
            subscription.timer = None

    def clear(self) -> None:
        """Forget all, since the connection has ended; its websocket leaves the channels itself."""
        subscriptions, self._by_name = self._by_name, {}
        for subscription in subscriptions.values():
            self._cancel(subscription)
            subscription.state = SubscriptionState.ENDED


Done = Callable[[Subs], object]


class _Connecting:
    """Wait until the server-side subscriptions of a connection are joined, or take too long."""

    def __init__(self, connection: ClientConnection, done: Done) -> None:
        self._connection = connection
        self._done: Done | None = done
        self._subs: dict[str, dict[str, Any]] = {}
        self._late: set[str] = set()
        self.remaining = 0

    def joined(
        self, subscription: Subscription, request: SubscribeRequest | None, joined: Joined
    ) -> None:
        if joined.outcome is Outcome.LEFT or not self._connection.is_alive:
            return
        if subscription.is_revoked:
            self._connection.subscriptions.leave(subscription)
            if subscription.name not in self._late:
                self._count()
            return
        if subscription.name in self._late:
            self._tell_late(subscription, request, joined)
            return
        self._subs[subscription.name] = self._result(subscription, request, joined)
        subscription.settle(SubscriptionState.SUBSCRIBED)
        self._count()

    def delayed(self, subscription: Subscription, why: Delay) -> None:
        # Redis is away: the client need not know, it is subscribed as soon as Redis is back.
        if not subscription.is_settled and subscription.name not in self._late:
            self._late.add(subscription.name)
            self._count()

    def _tell_late(
        self, subscription: Subscription, request: SubscribeRequest | None, joined: Joined
    ) -> None:
        if request is not None and request.recover and not _is_recovered(request, joined):
            # A push cannot say that something is missing; the answer to the next connect can.
            self._connection.gap_in(subscription)
            return
        result = self._result(subscription, request, joined)
        publications = result.pop('publications', [])
        for key in ('recovered', 'was_recovering'):
            result.pop(key, None)
        self._connection.push('subscribe', result, subscription.name)
        for publication in publications:
            self._connection.send(encode_publication_push(subscription.name, publication))
        subscription.settle(SubscriptionState.SUBSCRIBED)

    def _result(
        self, subscription: Subscription, request: SubscribeRequest | None, joined: Joined
    ) -> dict[str, Any]:
        return self._connection.subscriptions.result_of(subscription, request, joined)

    def _count(self) -> None:
        self.remaining -= 1
        done, subs = self._done, self._subs
        if self.remaining <= 0 and done is not None and self._connection.is_alive:
            self._done = None
            done(subs)


def _position_in(request: SubscribeRequest, channel: str) -> Position | None:
    """Return where a client left off, or where the page was made that it shows."""
    if request.recover:
        return Position(request.epoch, request.offset) if request.epoch else NOWHERE
    since = request.data.get('since') if isinstance(request.data, dict) else None
    if not isinstance(since, str):
        return None
    try:
        return PositionsToken(since).position_on(channel)
    except ValueError:
        return NOWHERE


def _is_recovered(request: SubscribeRequest, joined: Joined) -> bool:
    return joined.outcome is Outcome.OK and joined.position is not None


def _result(
    request: SubscribeRequest | None, joined: Joined, kind_of_kept: Kind, *, as_text: bool
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    is_resuming = request is not None and (request.recover or _names_page(request))
    position = joined.position
    if position is not None:
        result.update(recoverable=True, positioned=True, epoch=position.epoch)
        result['offset'] = position.offset
    publications: list[Raw] = []
    if joined.messages is not None:
        publications += joined.messages.encoded(encoded_as_text if as_text else encoded)
    if joined.kept is not None:
        kept = Publication(joined.kept, kind_of_kept)
        publications.insert(0, encoded(kept, as_text=as_text))
    if publications:
        result['publications'] = publications
    if request is not None and is_resuming:
        result['was_recovering'] = True
        result['recovered'] = _is_recovered(request, joined)
        if result['recovered'] and request.recover:
            # What it missed takes it from there to the newest position.
            result['offset'] = request.offset
    return result


def _names_page(request: SubscribeRequest) -> bool:
    return isinstance(request.data, dict) and isinstance(request.data.get('since'), str)

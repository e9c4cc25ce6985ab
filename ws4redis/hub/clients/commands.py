"""What connected clients may ask for, beside connecting and subscribing."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ws4redis.broker.history import Kind, Outcome, Page, PageRequest, Position
from ws4redis.broker.outgoing import options_of_channel
from ws4redis.exceptions import ClientError
from ws4redis.hub.clients.wire import encoded
from ws4redis.hub.publication import publication_of
from ws4redis.protocol.client.codes import ErrorCode
from ws4redis.protocol.client.commands import (
    ChannelRequest,
    HistoryRequest,
    PublishRequest,
    RefreshRequest,
    RPCRequest,
    SendRequest,
)
from ws4redis.protocol.client.data import encode_json, payload_of
from ws4redis.protocol.client.replies import Raw

if TYPE_CHECKING:
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.hub.clients.project import Grant
    from ws4redis.hub.identity import Identity

logger = logging.getLogger('ws4redis')

Command = Callable[['ClientConnection', int, Any], object]


def _with_grant(
    connection: ClientConnection,
    number: int,
    verb: str,
    name: str,
    go_on: Callable[[str], object],
    *,
    failed: Callable[[], object] | None = None,
) -> None:
    """Call ``go_on(channel)`` if the client may do something on a channel; else answer why not."""
    service = connection.service

    def refuse(error: BaseException | ErrorCode) -> None:
        connection.fail(number, error)
        if failed is not None:
            failed()

    try:
        parsed = service.parse_name(name)
    except ValueError:
        refuse(ErrorCode.BAD_REQUEST)
        return
    channel = service.channel_of(connection.visitor, parsed)
    if channel is None:
        refuse(ErrorCode.PERMISSION_DENIED)
        return
    full = channel

    def answer(grant: Grant | None, error: BaseException | None) -> None:
        if error is not None or grant is None or not grant.is_allowed:
            refuse(error or ErrorCode.PERMISSION_DENIED)
        else:
            go_on(full)

    subscription = connection.subscriptions.of_channel(channel)
    is_subscribed = subscription is not None and subscription.is_subscribed
    if is_subscribed if verb == 'subscribe' else channel in connection.visitor.publishes:
        go_on(channel)
        return
    grant = service.project.decide(connection.visitor, verb, parsed, '')
    if grant is not None:
        answer(grant, None)
    else:
        arguments = (connection.visitor, verb, parsed, '')
        connection.call('the policy', answer, service.project.may, *arguments)


# Publishing: one after the other, so that a client's publications keep their order


def _publish(connection: ClientConnection, number: int, request: PublishRequest) -> None:
    def start() -> None:
        def end() -> None:
            waiting = connection.publishing
            if waiting is not None:
                waiting.popleft()
                if waiting:
                    waiting[0]()
                else:
                    connection.publishing = None

        def go_on(channel: str) -> None:
            _publish_on(connection, number, request, channel, end)

        _with_grant(connection, number, 'publish', request.channel, go_on, failed=end)

    if connection.publishing is None:
        connection.publishing = deque()
    connection.publishing.append(start)
    if len(connection.publishing) == 1:
        start()


def _publish_on(
    connection: ClientConnection,
    number: int,
    request: PublishRequest,
    channel: str,
    end: Callable[[], object],
) -> None:
    try:
        content, is_json = payload_of(request.data)
    except ValueError:
        connection.fail(number, ErrorCode.BAD_REQUEST)
        end()
        return
    has_history = options_of_channel(channel).has_history

    def done(positions: object, error: Exception | None) -> None:
        if not connection.is_alive:
            return
        if error is not None:
            # Whoever gave it up has logged why.
            connection.fail(number, ErrorCode.INTERNAL)
        else:
            connection.reply(number, 'publish', {})

    connection.service.hub.publish(
        connection.websocket,
        (channel,),
        content,
        kind=Kind.JSON if is_json else Kind.TEXT,
        # Without a history there is nothing to tell repetitions by.
        once=_once_of(connection, request) if has_history else None,
        done=done,
    )
    # Redis gets them in the order of these calls.
    end()


def _once_of(connection: ClientConnection, request: PublishRequest) -> str | None:
    """Return the idempotency key: of this client's own, so that none can forestall another's."""
    if not request.idempotency_key:
        return None
    identity = connection.identity
    owner = identity.user or identity.session or ''
    return f'client:{owner}:{request.idempotency_key[:128]}'


# Asking about a channel


def _history(connection: ClientConnection, number: int, request: HistoryRequest) -> None:
    def go_on(channel: str) -> None:
        if not options_of_channel(channel).has_history:
            connection.fail(number, ErrorCode.NOT_AVAILABLE)
            return
        most = connection.service.options.max_history_page
        limit = most if request.limit < 0 else min(request.limit, most)
        since = request.since
        page_request = PageRequest(
            channel,
            None if since is None else Position(since.epoch or '?', since.offset),
            max(1, limit),
            request.reverse,
        )

        def answer(page: Page | None, error: BaseException | None) -> None:
            if error is not None or page is None:
                connection.fail(number, error or ErrorCode.INTERNAL)
            elif page.outcome is not Outcome.OK:
                connection.fail(number, ErrorCode.UNRECOVERABLE_POSITION)
            else:
                connection.reply(number, 'history', _page(page, with_entries=limit > 0))

        connection.call(
            'reading a history', answer, connection.service.project.read_page, page_request
        )

    _with_grant(connection, number, 'subscribe', request.channel, go_on)


def _page(page: Page, *, with_entries: bool) -> dict[str, Any]:
    epoch = page.newest.epoch
    publications = (
        [encoded(publication_of(entry, epoch)) for entry in page.entries] if with_entries else []
    )
    return {'publications': publications, 'epoch': epoch, 'offset': page.newest.offset}


def _presence(connection: ClientConnection, number: int, request: ChannelRequest) -> None:
    def go_on(channel: str) -> None:
        if not options_of_channel(channel).presence:
            connection.fail(number, ErrorCode.NOT_AVAILABLE)
        else:
            connection.service.presence.tell_members(connection, number, channel)

    _with_grant(connection, number, 'subscribe', request.channel, go_on)


def _presence_stats(connection: ClientConnection, number: int, request: ChannelRequest) -> None:
    def go_on(channel: str) -> None:
        if not options_of_channel(channel).presence:
            connection.fail(number, ErrorCode.NOT_AVAILABLE)
        else:
            connection.service.presence.tell_counts(connection, number, channel)

    _with_grant(connection, number, 'subscribe', request.channel, go_on)


# Code of the project


def _rpc(connection: ClientConnection, number: int, request: RPCRequest) -> None:
    def answer(result: Any, error: BaseException | None) -> None:
        if error is None:
            try:
                data = Raw(encode_json(result))
            except (TypeError, ValueError) as exc:
                error = exc
            else:
                connection.reply(number, 'rpc', {'data': data})
        if error is not None:
            connection.fail(number, error)

    function = connection.service.project.call
    connection.call('an rpc', answer, function, connection.visitor, request.method, request.data)


def _send(connection: ClientConnection, number: int, request: SendRequest) -> None:
    if connection.is_classic:
        _send_as_websocket(connection, request)
        return

    def answer(result: Any, error: BaseException | None) -> None:
        if isinstance(error, ClientError):
            logger.debug('%r sent what nobody takes: %s', connection.websocket, error)
        elif error is not None and not isinstance(error, TimeoutError):
            logger.error('taking a message of %r failed', connection.websocket, exc_info=error)

    function = connection.service.project.call
    connection.call('a message', answer, function, connection.visitor, '', request.data)


def _send_as_websocket(connection: ClientConnection, request: SendRequest) -> None:
    """Publish what a page sends as if it came on a plain websocket: without an answer."""
    publishes = connection.visitor.publishes
    try:
        content, is_json = payload_of(request.data)
    except ValueError:
        return
    if publishes and not is_json:
        connection.service.hub.publish(connection.websocket, publishes, content)


# Staying


def _refresh(connection: ClientConnection, number: int, request: RefreshRequest) -> None:
    asked_at = connection.service.loop.timers.clock()

    def answer(identity: Identity | None, error: BaseException | None) -> None:
        if isinstance(error, ClientError) and error.disconnects:
            connection.disconnect(error.code)
        elif error is not None or identity is None:
            connection.fail(number, error or ErrorCode.INTERNAL)
        elif identity.user != connection.identity.user:
            # A token of somebody else: what was granted to this one must not become his.
            connection.fail(number, ErrorCode.PERMISSION_DENIED)
        else:
            connection.visitor.identity = identity
            connection.note_identity(asked_at)
            result = {'client': connection.id, 'version': 'ws4redis', **connection.expiry()}
            connection.reply(number, 'refresh', result)

    identify = connection.service.project.identify
    connection.call('identifying', answer, identify, connection.visitor, request.token)


def _ping(connection: ClientConnection, number: int, request: object) -> None:
    connection.reply(number, 'ping', {})


COMMANDS: Final[Mapping[str, Command]] = {
    'subscribe': lambda connection, number, request: connection.subscriptions.subscribe(
        number, request
    ),
    'unsubscribe': lambda connection, number, request: connection.subscriptions.unsubscribe(
        number, request.channel
    ),
    'sub_refresh': lambda connection, number, request: connection.subscriptions.refresh(
        number, request
    ),
    'publish': _publish,
    'history': _history,
    'presence': _presence,
    'presence_stats': _presence_stats,
    'rpc': _rpc,
    'send': _send,
    'refresh': _refresh,
    'ping': _ping,
}

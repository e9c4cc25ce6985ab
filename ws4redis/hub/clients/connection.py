"""A connection of the client protocol: commands in, replies and pushes out.

    NEW ── connect ──> CONNECTING ── identified, server-side subscriptions joined ──> CONNECTED

Any other command before ``connect``, or another ``connect``, ends it. Commands are taken in their
order. What takes a call in the pool is answered when that ends; meanwhile the next ones are taken,
up to a bound, beyond which the peer is not read. Publications alone keep their order.

All methods run in the loop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ws4redis.exceptions import ClientError, MalformedCommand
from ws4redis.hub.clients.calls import MAX_CALLS_AT_ONCE, Answer, Call
from ws4redis.hub.clients.commands import COMMANDS
from ws4redis.hub.clients.subscriptions import Subscriptions
from ws4redis.hub.peer import Paused
from ws4redis.hub.receiver import ConnectionKind
from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode, UnsubscribeCode
from ws4redis.protocol.client.commands import Command, ConnectRequest, decode_commands
from ws4redis.protocol.client.replies import (
    encode_error,
    encode_error_code,
    encode_frames,
    encode_push,
    encode_reply,
)
from ws4redis.protocol.frames import Opcode

if TYPE_CHECKING:
    from ws4redis.hub.channel import Channel, Gap
    from ws4redis.hub.clients.project import Visitor
    from ws4redis.hub.clients.service import ClientService
    from ws4redis.hub.clients.subscription import Subscription
    from ws4redis.hub.clients.websocket import ClientWebSocket
    from ws4redis.hub.identity import Identity
    from ws4redis.hub.websocket import WebSocket
    from ws4redis.loop.timers import Timer

logger = logging.getLogger('ws4redis')

# About a millisecond of work; then it is others' turn.
COMMANDS_AT_ONCE = 32
SERVER_VERSION = 'ws4redis'
# A ticket is good for some minutes: who wants tickets gets another one well before that.
RENEW_TICKET_AFTER_SECONDS = 200.0


class ConnectionState(IntEnum):
    NEW = 0
    CONNECTING = 1
    CONNECTED = 2
    CLOSED = 3


class ClientConnection:
    """One client. The receiver of its websocket."""

    kind = ConnectionKind.CLIENT_PROTOCOL

    __slots__ = (
        '_allowance',
        '_frames',
        '_is_taking',
        '_out',
        '_refilled_at',
        '_ticket_at',
        '_timer',
        'calls',
        'id',
        'is_classic',
        'joins',
        'names',
        'publishing',
        'service',
        'session',
        'since',
        'state',
        'subscriptions',
        'visitor',
        'websocket',
    )

    def __init__(
        self,
        service: ClientService,
        visitor: Visitor,
        names: tuple[str, ...] = (),
        *,
        joins: tuple[str, ...] = (),
        is_classic: bool = False,
        since: str | None = None,
    ) -> None:
        self.service = service
        self.visitor = visitor
        # Whether it stands for a plain websocket: payloads are text or bytes, and what it sends
        # is published where its URL says.
        self.is_classic = is_classic
        # Channels that the server subscribes it to: names as clients give them, and full ones.
        self.names = names
        self.joins = joins
        # What the URL says that the client has seen, unless the client says more.
        self.since = since
        self.state = ConnectionState.NEW
        self.id = str(uuid4())
        self.subscriptions: Subscriptions = Subscriptions(self)
        # The secret by which a stream's client is known in its requests.
        self.session: str | None = None
        self.calls = 0
        # Publications that wait for the one before them.
        self.publishing: deque[Callable[[], object]] | None = None
        self._allowance = service.options.max_commands_per_second or 0.0
        self._refilled_at = service.loop.timers.clock()
        # What was received and is not taken yet, and what is sent when that is done.
        self._frames: deque[Iterator[Command]] | None = None
        self._out: list[str] | None = None
        self._is_taking = False
        self._timer: Timer | None = None
        # When the client got its last ticket, if it wants any.
        self._ticket_at: float | None = None
        self.websocket: ClientWebSocket

    def begin(self, websocket: ClientWebSocket) -> None:
        """Begin with a websocket that is about to open; the client has to connect in time."""
        self.websocket = websocket
        self._set_timer(
            self.service.options.connect_timeout_seconds, self.disconnect, DisconnectCode.STALE
        )

    @property
    def is_alive(self) -> bool:
        return self.state is not ConnectionState.CLOSED

    @property
    def waiting_frames(self) -> int:
        """The number of frames of which commands wait for their turn."""
        return len(self._frames or ())

    @property
    def identity(self) -> Identity:
        return self.visitor.identity

    # What the websocket tells

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        if payload == b'{}':
            websocket.pinged_in_round = 0
            return
        try:
            commands = decode_commands(payload, self.service.options.limits)
        except MalformedCommand as error:
            self._refuse_frame(error)
            return
        if self._frames is None:
            self._frames = deque()
        self._frames.append(commands)
        self.go_on()

    def websocket_drained(self, websocket: WebSocket) -> None:
        pass

    def websocket_closing(self, websocket: WebSocket, code: int, reason: str) -> None:
        self._ended()

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        self._ended()

    def gap(self, channel: Channel, gap: Gap) -> None:
        """Tell the client that it missed publications: it subscribes again, and is told then."""
        subscription = self.subscriptions.of_channel(channel.name.decode(errors='replace'))
        if subscription is not None:
            self.gap_in(subscription)

    def gap_in(self, subscription: Subscription) -> None:
        if subscription.is_server_side:
            # Such a subscription is made anew only with its connection.
            self.disconnect(DisconnectCode.INSUFFICIENT_STATE)
        else:
            self.subscriptions.end(subscription, UnsubscribeCode.INSUFFICIENT_STATE)

    def _ended(self) -> None:
        if self.state is ConnectionState.CLOSED:
            return
        self.state = ConnectionState.CLOSED
        self._set_timer(None)
        if self.session is not None:
            self.service.sessions.forget(self.session)
        self._frames = self._out = self.publishing = None
        self.subscriptions.clear()

    # Commands

    def go_on(self) -> None:
        """Take commands that wait, as long as it is this connection's turn."""
        if self._is_taking or not self._frames:
            return
        self._is_taking = True
        if self._out is None:
            self._out = []
        try:
            is_done = self._take()
        finally:
            self._is_taking = False
            out, self._out = self._out, None
        if not self.is_alive:
            return
        if out:
            self._send_frames(out)
        if is_done:
            self._frames = None
            self.websocket.resume_reading(Paused.RECEIVER)
        else:
            self.websocket.pause_reading(Paused.RECEIVER)

    def _take(self) -> bool:
        """Take some commands; tell whether all are taken."""
        frames = self._frames
        left = COMMANDS_AT_ONCE
        while frames:
            if self.state is ConnectionState.CONNECTING or self.calls >= MAX_CALLS_AT_ONCE:
                return False
            if not left:
                self.service.loop.call_soon(self.go_on)
                return False
            left -= 1
            try:
                command = next(frames[0], None)
            except MalformedCommand as error:
                self._refuse_frame(error)
                return False
            if command is None:
                frames.popleft()
            else:
                self._do(command)
                if not self.is_alive:
                    return False
        return True

    def _do(self, command: Command) -> None:
        if command.is_pong:
            self.websocket.pinged_in_round = 0
        elif (command.method == 'connect') is not (self.state is ConnectionState.NEW):
            logger.debug('%r sends its commands in a wrong order', self.websocket)
            self.disconnect(DisconnectCode.BAD_REQUEST)
        elif not self._may_take():
            if command.id:
                self.send(encode_error_code(command.id, ErrorCode.TOO_MANY_REQUESTS))
        elif command.method is None:
            self.send(encode_error_code(command.id, ErrorCode.METHOD_NOT_FOUND))
        elif command.method == 'connect':
            assert isinstance(command.request, ConnectRequest)
            self._connect(command.id, command.request)
        else:
            COMMANDS[command.method](self, command.id, command.request)

    def _may_take(self) -> bool:
        rate = self.service.options.max_commands_per_second
        if rate is None:
            return True
        self._allowance -= 1
        if self._allowance >= 0:
            return True
        now = self.service.loop.timers.clock()
        accrued = (now - self._refilled_at) * rate
        self._refilled_at = now
        self._allowance = min(self._allowance + accrued, rate)
        if self._allowance >= 0:
            return True
        self._allowance += 1
        if self.service.may_log('commands'):
            logger.warning(
                '%r exceeds WS4REDIS_MAX_COMMANDS_PER_SECOND: what is too much is refused',
                self.websocket,
            )
        return False

    def _refuse_frame(self, error: MalformedCommand) -> None:
        logger.debug('%r sent what is no command: %s', self.websocket, error.reason)
        self.disconnect(DisconnectCode.BAD_REQUEST)

    # Connecting

    def _connect(self, number: int, request: ConnectRequest) -> None:
        self.state = ConnectionState.CONNECTING
        self._set_timer(None)
        asked_at = self.service.loop.timers.clock()
        if not self.service.project.needs_identifying(self.visitor, request.token):
            self._identified(number, request, self.visitor.identity, asked_at)
            return

        def answer(identity: Identity | None, error: BaseException | None) -> None:
            if error is not None:
                self._fail_connecting(number, error)
            else:
                assert identity is not None
                self._identified(number, request, identity, asked_at)

        identify = self.service.project.identify
        self.call('identifying', answer, identify, self.visitor, request.token)

    def _fail_connecting(self, number: int, error: BaseException) -> None:
        if isinstance(error, ClientError) and error.disconnects:
            self.disconnect(DisconnectCode(error.code))
            return
        self.fail(number, error)
        # Clients whose token has expired try again on the same websocket.
        self.state = ConnectionState.NEW
        self._set_timer(
            self.service.options.connect_timeout_seconds, self.disconnect, DisconnectCode.STALE
        )
        self.go_on()

    def _identified(
        self, number: int, request: ConnectRequest, identity: Identity, asked_at: float
    ) -> None:
        if not identity.is_authenticated and not self.service.options.allows_anonymous:
            self._fail_connecting(number, ClientError(ErrorCode.UNAUTHORIZED, 'unauthorized'))
            return
        self.visitor.identity = identity
        self.visitor.is_by_token = bool(request.token)
        if request.token:
            self.note_identity(asked_at)
        names = (*self.names, *identity.channels)

        def joined(subs: Mapping[str, Any]) -> None:
            self._connected(number, subs, wants_ticket=_wants_ticket(request))

        self.subscriptions.join_server_side(names, self.joins, request.subs, joined)

    def _connected(
        self, number: int, subs: Mapping[str, Any], *, wants_ticket: bool = False
    ) -> None:
        self.state = ConnectionState.CONNECTED
        result: dict[str, Any] = {'client': self.id, 'version': SERVER_VERSION}
        ping_seconds = self.service.ping_seconds
        if ping_seconds:
            result['ping'] = max(1, round(ping_seconds))
            result['pong'] = True
        if subs:
            result['subs'] = subs
        if self.session is not None:
            result['session'] = self.session
            result['node'] = self.service.sessions.node
        ticket = self._make_ticket() if wants_ticket else None
        if ticket is not None:
            result['data'] = {'ticket': ticket}
        result.update(self.expiry())
        self.reply(number, 'connect', result)
        # What the channels of the server brought while others were still joined.
        self.websocket.release_held([])
        self.go_on()

    def _make_ticket(self) -> str | None:
        ticket = self.service.project.ticket(self.identity)
        self._ticket_at = None if ticket is None else self.service.loop.timers.clock()
        return ticket

    def renew_ticket(self) -> None:
        """Push another ticket to a client that wants them, when its last one is old."""
        if self._ticket_at is None:
            return
        if self.service.loop.timers.clock() - self._ticket_at >= RENEW_TICKET_AFTER_SECONDS:
            ticket = self._make_ticket()
            if ticket is not None:
                self.send(f'{{"push":{{"ticket":"{ticket}"}}}}')

    def note_identity(self, asked_at: float) -> None:
        """Let the connection end with its identity; ``asked_at``: when that was asked."""
        # It ends by itself when the identity expires, after a grace.
        lasting = replace(self.identity, expires=None)
        self.service.hub.identify(self.websocket, lasting, asked_at)

    def expiry(self) -> dict[str, Any]:
        """Note when the identity ends, and return what the client is told about it."""
        expires = self.identity.expires
        if expires is None:
            self._set_timer(None)
            return {}
        seconds = self.service.seconds_until(expires)
        self._set_timer(
            seconds + self.service.options.expiry_grace_seconds,
            self.disconnect,
            DisconnectCode.EXPIRED,
        )
        return {'expires': True, 'ttl': max(1, round(seconds))}

    def _set_timer(
        self, seconds: float | None, function: Callable[..., object] | None = None, *args: Any
    ) -> None:
        """Set the only timer: to be connected, or not to be expired, by then."""
        if self._timer is not None:
            self.service.loop.timers.cancel(self._timer)
            self._timer = None
        if seconds is not None and function is not None:
            self._timer = self.service.loop.call_later(seconds, function, *args)

    # What the client is sent

    def send(self, message: str) -> None:
        """Send a reply or push; those of one turn go out together, before anything else does."""
        if self._out is not None:
            self._out.append(message)
        elif self.is_alive:
            self._out = [message]
            self.websocket.direct = False
            self.service.send_at_turn_end(self)

    @property
    def has_unsent(self) -> bool:
        """Tell whether there are replies and pushes of this turn that wait for its end."""
        return bool(self._out)

    def send_unsent(self) -> None:
        """Send the replies and pushes of this turn now."""
        out, self._out = self._out, None
        if out:
            self._send_frames(out)

    def _send_frames(self, messages: list[str]) -> None:
        for frame in encode_frames(messages):
            self.websocket.send_message(frame, Opcode.TEXT)
        self.websocket.note_sent()

    def reply(self, number: int, method: str, result: Mapping[str, Any]) -> None:
        self.send(encode_reply(number, method, result))

    def fail(self, number: int, error: BaseException | ErrorCode) -> None:
        """Answer a command with an error; what is no ``ClientError`` is logged, and not told."""
        if isinstance(error, ErrorCode):
            self.send(encode_error_code(number, error))
        elif isinstance(error, ClientError) and not error.disconnects:
            self.send(
                encode_error(number, error.code, error.message, is_temporary=error.is_temporary)
            )
        else:
            if not isinstance(error, TimeoutError):
                logger.error('a command of %r failed', self.websocket, exc_info=error)
            self.send(encode_error_code(number, ErrorCode.INTERNAL))

    def push(self, kind: str, content: Mapping[str, Any], name: str) -> None:
        self.send(encode_push(kind, content, channel=name))

    # What the server does

    def disconnect(self, code: int, reason: str | None = None) -> None:
        """End the connection; from 3500 on the client stays away."""
        if not self.is_alive:
            return
        if reason is None:
            try:
                reason = DisconnectCode(code).reason
            except ValueError:
                reason = ''
        self.send_unsent()
        self._ended()
        self.websocket.close(int(code), reason)

    def unsubscribe(
        self, channel: str, code: int = UnsubscribeCode.SERVER, reason: str = ''
    ) -> None:
        """End the subscription to a channel, given by its full name, if there is one."""
        subscription = self.subscriptions.of_channel(channel)
        if subscription is not None:
            self.subscriptions.revoke(subscription, code, reason)

    def call(self, what: str, answer: Answer, function: Callable[..., Any], *args: Any) -> None:
        """Call something in the pool; ``answer`` gets the result or the error in the loop."""
        Call(self, what, answer).start(function, *args)


def _wants_ticket(request: ConnectRequest) -> bool:
    return isinstance(request.data, dict) and request.data.get('ticket') is True

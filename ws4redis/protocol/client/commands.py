"""Commands: what clients ask for, decoded and checked.

A frame holds one command or several, a JSON object on each line. Fields that are absent or null
have their default, and unknown ones are passed over, as the definition in Protobuf has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from ws4redis.exceptions import MalformedCommand
from ws4redis.protocol.client.data import decode_json

MAX_OFFSET: Final = 2**53 - 1
MAX_COMMAND_ID: Final = 2**32 - 1
#: A bit of a subscription's ``flag``.
REJECT_UNRECOVERED: Final = 2


@dataclass(frozen=True, slots=True)
class CommandLimits:
    """Bounds of what one frame may hold; its size is bounded before it comes here."""

    max_commands_per_frame: int = 10_000
    max_server_subscriptions: int = 1000


class StreamPosition(NamedTuple):
    """A place in a channel's stream, as a client names it."""

    epoch: str
    offset: int


class SubscribeRequest(NamedTuple):
    """A wish to get what is published on a channel.

    ``rejects_unrecovered`` asks for an error where the position cannot be recovered.
    """

    channel: str
    token: str = ''
    recover: bool = False
    epoch: str = ''
    offset: int = 0
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    data: Any = None
    rejects_unrecovered: bool = False

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.epoch, self.offset)


class ConnectRequest(NamedTuple):
    """The first command of a connection; ``subs`` are server-side subscriptions to recover."""

    token: str
    data: Any
    subs: dict[str, SubscribeRequest]
    name: str
    version: str


class ChannelRequest(NamedTuple):
    """A question about a channel, or the wish to leave it."""

    channel: str


class PublishRequest(NamedTuple):
    """Something to publish; ``idempotency_key`` is an addition of ours."""

    channel: str
    data: Any
    idempotency_key: str


class HistoryRequest(NamedTuple):
    """A page of a history; without a limit the position alone is wanted, below 0 all."""

    channel: str
    limit: int
    since: StreamPosition | None
    reverse: bool


class RPCRequest(NamedTuple):
    """A call of the project's code."""

    method: str
    data: Any


class SendRequest(NamedTuple):
    """A message to the project's code, which is not answered."""

    data: Any


class RefreshRequest(NamedTuple):
    """Another token for the connection."""

    token: str


class SubRefreshRequest(NamedTuple):
    """Another token for a subscription."""

    channel: str
    token: str


class PingRequest(NamedTuple):
    """A question whether the server is there."""


Request: TypeAlias = (
    ConnectRequest
    | SubscribeRequest
    | ChannelRequest
    | PublishRequest
    | HistoryRequest
    | RPCRequest
    | SendRequest
    | RefreshRequest
    | SubRefreshRequest
    | PingRequest
)


class Command(NamedTuple):
    """One command; ``method`` is None for a pong, or for a method that nobody knows."""

    id: int
    method: str | None
    request: Request | None

    @property
    def is_pong(self) -> bool:
        return self.id == 0 and self.method is None


class _Fields:
    """The fields of one message, taken out one by one with their types checked."""

    __slots__ = ('_fields',)

    def __init__(self, fields: Any) -> None:
        if not isinstance(fields, dict):
            raise MalformedCommand('a request is no object')
        self._fields: Mapping[str, Any] = fields

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if value is None:
            return ''
        if not isinstance(value, str):
            raise MalformedCommand(f'{name} is no string')
        try:
            value.encode()
        except UnicodeEncodeError:
            raise MalformedCommand(f'{name} holds half a character') from None
        return value

    def flag(self, name: str) -> bool:
        value = self._fields.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise MalformedCommand(f'{name} is neither true nor false')

    def number(self, name: str, *, least: int, most: int) -> int:
        value = self._fields.get(name)
        if value is None:
            return 0
        # The JSON form of Protobuf writes numbers of 64 bits as strings.
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise MalformedCommand(f'{name} is no number within its bounds')
        return value

    def any(self, name: str) -> Any:
        return self._fields.get(name)


def _subscribe(fields: _Fields) -> SubscribeRequest:
    return SubscribeRequest(
        fields.text('channel'),
        fields.text('token'),
        fields.flag('recover'),
        fields.text('epoch'),
        fields.number('offset', least=0, most=MAX_OFFSET),
        fields.flag('positioned'),
        fields.flag('recoverable'),
        fields.flag('join_leave'),
        fields.any('data'),
        bool(fields.number('flag', least=0, most=2**53) & REJECT_UNRECOVERED),
    )


def _connect(fields: _Fields) -> ConnectRequest:
    subs = fields.any('subs')
    if subs is None:
        subs = {}
    if not isinstance(subs, dict):
        raise MalformedCommand('subs is no object')
    return ConnectRequest(
        fields.text('token'),
        fields.any('data'),
        {name: _subscribe(_Fields(request)) for name, request in subs.items()},
        fields.text('name'),
        fields.text('version'),
    )


def _history(fields: _Fields) -> HistoryRequest:
    since = fields.any('since')
    position = None
    if since is not None:
        of_since = _Fields(since)
        position = StreamPosition(
            of_since.text('epoch'), of_since.number('offset', least=0, most=MAX_OFFSET)
        )
    return HistoryRequest(
        fields.text('channel'),
        fields.number('limit', least=-(2**31), most=2**31 - 1),
        position,
        fields.flag('reverse'),
    )


def _channel(fields: _Fields) -> ChannelRequest:
    return ChannelRequest(fields.text('channel'))


_REQUESTS: Final[Mapping[str, Callable[[_Fields], Request]]] = {
    'connect': _connect,
    'subscribe': _subscribe,
    'unsubscribe': _channel,
    'publish': lambda fields: PublishRequest(
        fields.text('channel'), fields.any('data'), fields.text('idempotency_key')
    ),
    'presence': _channel,
    'presence_stats': _channel,
    'history': _history,
    'ping': lambda fields: PingRequest(),
    'send': lambda fields: SendRequest(fields.any('data')),
    'rpc': lambda fields: RPCRequest(fields.text('method'), fields.any('data')),
    'refresh': lambda fields: RefreshRequest(fields.text('token')),
    'sub_refresh': lambda fields: SubRefreshRequest(fields.text('channel'), fields.text('token')),
}


def decode_commands(frame: bytes, limits: CommandLimits) -> Iterator[Command]:
    """Decode the commands of a frame, each when it is asked for.

    Raise ``MalformedCommand``, possibly after some commands: what follows a command that cannot be
    understood had better not be done.
    """
    lines = frame.split(b'\n', limits.max_commands_per_frame)
    if len(lines) > limits.max_commands_per_frame and lines[-1].strip():
        raise MalformedCommand('a frame holds too many commands')
    return _decode_lines(lines[: limits.max_commands_per_frame], limits)


def _decode_lines(lines: list[bytes], limits: CommandLimits) -> Iterator[Command]:
    is_empty = True
    for line in lines:
        line = line.strip()
        if line:
            is_empty = False
            yield _decode_command(line, limits)
    if is_empty:
        raise MalformedCommand('a frame holds no command')


def _decode_command(line: bytes, limits: CommandLimits) -> Command:
    try:
        message = decode_json(line)
    except ValueError:
        raise MalformedCommand('a command is no JSON') from None
    fields = _Fields(message)
    number = fields.number('id', least=0, most=MAX_COMMAND_ID)
    for method, decode in _REQUESTS.items():
        request = message.get(method)
        if request is not None:
            command = Command(number, method, decode(_Fields(request)))
            break
    else:
        if number == 0 and message:
            raise MalformedCommand('a command has neither an id nor a method')
        return Command(number, None, None)
    if number == 0 and method != 'send':
        raise MalformedCommand('a command that is answered has no id')
    if method == 'connect' and len(command.request.subs) > limits.max_server_subscriptions:  # type: ignore[union-attr]
        raise MalformedCommand('too many subscriptions are to be recovered')
    return command

"""What other programs may ask for: the methods of Centrifugo's HTTP API, by their names.

Channels are named as in Redis, without the prefix: ``broadcast:chat/7``, ``user:mary:inbox``,
``group:staff:news``; a name without an audience means the broadcast. Each method takes the
parameters of a request and returns its result; they block.
"""

from __future__ import annotations

import binascii
import json
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from ws4redis.broker.channels import Audience, channel_name
from ws4redis.broker.control import Do
from ws4redis.broker.history import Entry, Kind, Outcome, PageRequest, Position
from ws4redis.broker.outgoing import Outgoing, options_of_channel
from ws4redis.broker.snapshots import read_snapshots
from ws4redis.broker.subscriptions import numbers_of_subscribers, subscribed_channels
from ws4redis.conf import conf
from ws4redis.protocol.client.codes import ErrorCode
from ws4redis.protocol.client.commands import MAX_OFFSET
from ws4redis.protocol.client.data import data_of, payload_of
from ws4redis.protocol.end_codes import EndCode
from ws4redis.publishing.broker import current_broker
from ws4redis.publishing.control import disconnect, message_to

T = TypeVar('T')

Params = Mapping[str, Any]
Result = dict[str, Any]

# What `limit: -1`, "all", means at most.
MAX_PUBLICATIONS: Final = 1000
MAX_CHANNELS: Final = 10_000
_NOTHING: Final = object()


class ApiError(Exception):
    """Answer a request with an error of the protocol."""

    def __init__(self, code: ErrorCode, message: str = '') -> None:
        super().__init__(message or code.message)
        self.code = code
        self.message = message or code.message


def run(method: str, params: Params) -> Result:
    """Run one method; raise ``ApiError``."""
    try:
        function = METHODS[method]
    except KeyError:
        raise ApiError(ErrorCode.METHOD_NOT_FOUND) from None
    return function(params)


# Parameters


def _take(params: Params, name: str, kind: type[T], default: Any = _NOTHING) -> T:
    value = params.get(name)
    if value is None:
        if default is _NOTHING:
            raise ApiError(ErrorCode.BAD_REQUEST, f'{name} is missing')
        return default  # type: ignore[no-any-return]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ApiError(ErrorCode.BAD_REQUEST, f'{name} must be of type {kind.__name__}')
    return value


def full_name(name: str) -> str:
    """Return a channel's name in Redis; raise ``ApiError`` for a name that is none."""
    word, _, rest = name.partition(':')
    if not name:
        raise ApiError(ErrorCode.BAD_REQUEST, 'channel is missing')
    if word not in _AUDIENCES:
        return channel_name(Audience.BROADCAST, name, prefix=conf.key_prefix)
    if word != Audience.BROADCAST and ':' not in rest:
        raise ApiError(ErrorCode.BAD_REQUEST, f'{name!r} does not say whose: {word}:<name>:…')
    return f'{conf.key_prefix}{name}'


_AUDIENCES: Final = frozenset(Audience)


def _channel(params: Params) -> str:
    return full_name(_take(params, 'channel', str))


def _refuse(params: Params, *names: str) -> None:
    """Refuse what is not supported, rather than do something else than was asked for."""
    for name in names:
        if params.get(name):
            raise ApiError(ErrorCode.BAD_REQUEST, f'{name} is not supported')


# Publishing


def publish(params: Params) -> Result:
    return _publish(_channel(params), params)


def broadcast(params: Params) -> Result:
    names = _take(params, 'channels', list)
    if not names or not all(isinstance(name, str) for name in names):
        raise ApiError(ErrorCode.BAD_REQUEST, 'channels must be a list of names')
    responses: list[Result] = []
    for name in names:
        try:
            responses.append({'result': _publish(full_name(name), params)})
        except ApiError as error:
            responses.append(error_of(error))
    return {'responses': responses}


def _publish(channel: str, params: Params) -> Result:
    _refuse(params, 'tags', 'skip_history')
    once = _take(params, 'idempotency_key', str, None)
    try:
        if params.get('b64data'):
            content, kind = b64decode(_take(params, 'b64data', str), validate=True), Kind.TEXT
        else:
            if 'data' not in params:
                raise ApiError(ErrorCode.BAD_REQUEST, 'data is missing')
            payload = payload_of(params['data'])
            content, kind = payload.content, Kind.JSON if payload.is_json else Kind.TEXT
        positions = current_broker().publish(
            Outgoing((channel,), content, kind, once=once), transaction=True
        )
    except (ValueError, binascii.Error) as exc:
        raise ApiError(ErrorCode.BAD_REQUEST, str(exc)) from None
    position = positions.get(channel)
    return {} if position is None else {'offset': position.offset, 'epoch': position.epoch}


# Histories


def history(params: Params) -> Result:
    channel = _channel(params)
    if not options_of_channel(channel).has_history:
        raise ApiError(ErrorCode.NOT_AVAILABLE, 'the channel has no history')
    limit = _take(params, 'limit', int, 0)
    since = _take(params, 'since', dict, None)
    reverse = _take(params, 'reverse', bool, False)  # noqa: FBT003
    wanted = MAX_PUBLICATIONS if limit < 0 else min(limit, MAX_PUBLICATIONS)
    position = None
    if since is not None:
        epoch, offset = _take(since, 'epoch', str, ''), _take(since, 'offset', int, 0)
        if not 0 <= offset <= MAX_OFFSET:
            raise ApiError(ErrorCode.BAD_REQUEST, 'offset is out of its bounds')
        position = Position(epoch, offset) if epoch else None
    page = current_broker().read_page(PageRequest(channel, position, max(1, wanted), reverse))
    if page.outcome is not Outcome.OK:
        raise ApiError(ErrorCode.UNRECOVERABLE_POSITION)
    return {
        'publications': [_publication_of(entry) for entry in page.entries[:wanted]],
        'offset': page.newest.offset,
        'epoch': page.newest.epoch,
    }


def _publication_of(entry: Entry) -> Result:
    return {
        'offset': entry.offset,
        'data': json.loads(data_of(entry.payload, is_json=entry.kind is Kind.JSON)),
    }


# Presence


def presence(params: Params) -> Result:
    (roll,) = current_broker().rolls([_channel_with_presence(params)])
    return {
        'presence': {
            member.id: {
                'client': member.id,
                'user': member.user or '',
                **({'conn_info': member.info} if member.info else {}),
            }
            for member in roll.members
        }
    }


def presence_stats(params: Params) -> Result:
    (roll,) = current_broker().rolls([_channel_with_presence(params)])
    users = {member.user for member in roll.members if member.user is not None}
    return {'num_clients': roll.size, 'num_users': len(users)}


def _channel_with_presence(params: Params) -> str:
    channel = _channel(params)
    if not options_of_channel(channel).presence:
        raise ApiError(ErrorCode.NOT_AVAILABLE, 'the channel has no presence')
    return channel


# Ending


def end_connections(params: Params) -> Result:
    _refuse(params, 'client', 'whitelist')
    user = _take(params, 'user', str, None) or None
    session = _take(params, 'session', str, None) or None
    how = _take(params, 'disconnect', dict, {})
    code = _take(how, 'code', int, 0) or EndCode.DISCONNECTED
    try:
        disconnect(user=user, session=session, code=code, reason=_take(how, 'reason', str, ''))
    except ValueError as exc:
        raise ApiError(ErrorCode.BAD_REQUEST, str(exc)) from None
    return {}


def unsubscribe(params: Params) -> Result:
    _refuse(params, 'client')
    user = _take(params, 'user', str, None) or None
    session = _take(params, 'session', str, None) or None
    channel = _channel(params)
    try:
        message = message_to(Do.UNSUBSCRIBE, user=user, session=session, channel=channel)
    except ValueError as exc:
        raise ApiError(ErrorCode.BAD_REQUEST, str(exc)) from None
    current_broker().tell([message])
    return {}


# What there is


def channels(params: Params) -> Result:
    """Return the channels that somebody is subscribed to.

    The number of clients is that of those who are present, where the facility has presence; else
    that of the processes that hold subscribers.
    """
    prefix = conf.key_prefix
    pattern = _take(params, 'pattern', str, '') or '*'
    client = current_broker().client
    found = subscribed_channels(client, f'{_literal(prefix)}{pattern}')
    names = [name for name in found if name.startswith(tuple(f'{prefix}{a}:' for a in Audience))]
    if len(names) > MAX_CHANNELS:
        raise ApiError(ErrorCode.LIMIT_EXCEEDED, 'there are too many channels: give a pattern')
    numbers = numbers_of_subscribers(client, names)
    present = [name for name in names if options_of_channel(name).presence]
    if present:
        rolls = current_broker().rolls(present, only_count=True)
        numbers |= {name: roll.size for name, roll in zip(present, rolls, strict=True)}
    return {
        'channels': {
            name.removeprefix(prefix): {'num_clients': number} for name, number in numbers.items()
        }
    }


def _literal(text: str) -> str:
    """Return a text as it stands in a pattern of Redis, where nothing of it has a meaning."""
    return ''.join(f'\\{char}' if char in r'\*?[]' else char for char in text)


def info(params: Params) -> Result:
    """Return what is known of each process that holds connections."""
    now = time.time()
    nodes = []
    for snapshot in read_snapshots(current_broker().client):
        statistics = snapshot.get('statistics', {})
        nodes.append(
            {
                'uid': str(snapshot['process']),
                'name': f'{snapshot.get("host")}_{snapshot.get("pid")}',
                'version': 'ws4redis',
                'num_clients': int(statistics.get('open', 0)),
                'num_channels': int(statistics.get('channels', 0)),
                'uptime': max(0, round(now - snapshot.get('begun', now))),
            }
        )
    return {'nodes': nodes}


METHODS: Final[Mapping[str, Callable[[Params], Result]]] = {
    'publish': publish,
    'broadcast': broadcast,
    'history': history,
    'presence': presence,
    'presence_stats': presence_stats,
    'disconnect': end_connections,
    'unsubscribe': unsubscribe,
    'channels': channels,
    'info': info,
}


def error_of(error: ApiError) -> Result:
    """Return an error as it stands in an answer."""
    return {'error': {'code': int(error.code), 'message': error.message}}

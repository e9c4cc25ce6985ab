"""System checks of the settings: what each must look like, and what to do where it does not.

``manage.py check`` runs :func:`check_settings`; the websocket loop raises its first error when it
starts. Ids are stable: a project may silence one by ``SILENCED_SYSTEM_CHECKS``. They are described
in ``docs/reference/checks.md``.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from reprlib import repr as short_repr
from typing import Any, TypeAlias

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured

from ws4redis.broker.connections import make_bus_connection
from ws4redis.conf import CONNECTION_DEFAULTS, Conf, conf, load
from ws4redis.protocol.extensions import Compression

# Returns what is wrong with a value, to stand after the setting's name, or None.
Judge: TypeAlias = Callable[[Any], str | None]

SUBSCRIBER_METHODS = (
    'set_pubsub_channels',
    'get_file_descriptor',
    'parse_response',
    'publish_message',
    'release',
)
HANDLER_METHODS = ('on_open', 'on_message', 'on_close')
# A token of HTTP (RFC 9110, section 5.6.2), as names of headers and subprotocols are.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
ORIGIN = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+')
LARGEST_PORT = 65535


@dataclass(frozen=True)
class Rule:
    """State what one setting must look like."""

    id: str
    setting: str
    judge: Judge
    hint: str

    def check(self) -> list[CheckMessage]:
        """Return the error of this setting, if the project sets it and it is wrong."""
        if not hasattr(settings, self.setting):
            return []
        complaint = self.judge(getattr(settings, self.setting))
        if complaint is None:
            return []
        return [Error(f'{self.setting} {complaint}.', hint=self.hint, id=self.id)]


# Judges of plain values


def must_be(what: str, is_right: Callable[[Any], bool]) -> Judge:
    """Return a judge that complains in one sentence."""

    def judge(value: Any) -> str | None:
        return None if is_right(value) else f'must be {what}, not {short_repr(value)}'

    return judge


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


def is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def is_positive_whole(value: Any) -> bool:
    return is_whole_number(value) and value > 0


def is_not_negative(value: Any) -> bool:
    return is_number(value) and value >= 0


def is_filled_string(value: Any) -> bool:
    return isinstance(value, str) and value != ''


def is_list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(is_right, value))


def is_token(value: object) -> bool:
    return isinstance(value, str) and TOKEN.fullmatch(value) is not None


def is_origin(value: object) -> bool:
    return value == '*' or (isinstance(value, str) and ORIGIN.fullmatch(value) is not None)


# Judges that need more than one sentence


def judge_connection(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {type(value).__name__}'
    for option, what, is_right in CONNECTION_OPTIONS:
        if option in value and not is_right(value[option]):
            # The value is not shown: it may be a password in the wrong place.
            return f'holds a value for {option!r} that is not {what}'
    try:
        make_bus_connection()
    except ImproperlyConfigured as exc:
        return str(exc).removeprefix('WS4REDIS_CONNECTION').strip().rstrip('.')
    return None


def is_port(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and is_port(int(value))
    return is_whole_number(value) and 0 < value <= LARGEST_PORT


def is_database_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal()
    return is_whole_number(value) and value >= 0


CONNECTION_OPTIONS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ('host', 'a string', is_filled_string),
    ('port', f'a number from 1 to {LARGEST_PORT}', is_port),
    ('db', 'a whole number', or_none(is_database_number)),
    ('username', 'a string', or_none(lambda value: isinstance(value, str))),
    ('password', 'a string', or_none(lambda value: isinstance(value, str | bytes))),
    ('socket_timeout', 'a number of seconds', or_none(is_positive)),
    ('socket_connect_timeout', 'a number of seconds', or_none(is_positive)),
)


def judge_callable(name: str) -> Judge:
    """Return a judge of a setting that holds a callable, its dotted path, or None."""

    def judge(value: Any) -> str | None:
        return None if value is None else complaint_of_loading(name, value)

    return judge


def complaint_of_loading(name: str, value: Any) -> str | None:
    try:
        load(name, value)
    except ImproperlyConfigured as exc:
        return str(exc).removeprefix(name).strip().rstrip('.')
    return None


def judge_subscriber(value: Any) -> str | None:
    complaint = complaint_of_loading('WS4REDIS_SUBSCRIBER', value)
    if complaint is not None:
        return complaint
    subscriber = load('WS4REDIS_SUBSCRIBER', value)
    if not isinstance(subscriber, type):
        return f'must name a class, not {short_repr(subscriber)}'
    missing = missing_methods(subscriber, SUBSCRIBER_METHODS)
    if not any(hasattr(subscriber, f'send_{word}_messages') for word in ('persisted', 'persited')):
        missing.append('send_persisted_messages')
    return f'names a class that lacks {", ".join(missing)}' if missing else None


def missing_methods(cls: type[Any], methods: Iterable[str]) -> list[str]:
    return [method for method in methods if not callable(getattr(cls, method, None))]


def judge_handlers(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {short_repr(value)}'
    for regex, handler in value.items():
        try:
            re.compile(regex)
        except (re.error, TypeError) as exc:
            return f'has the key {short_repr(regex)}, which is no regular expression: {exc}'
        name = f'WS4REDIS_HANDLERS[{regex!r}]'
        # A regular expression with a group `namespace` may lead to several, by their names.
        judge = judge_namespaces if isinstance(handler, Mapping) else complaint_of_handler
        if (complaint := judge(name, handler)) is not None:
            return f'for {regex!r} {complaint}'
    return None


def judge_default_handlers(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {short_repr(value)}'
    return judge_namespaces('DEFAULT_WS_HANDLERS', value) if value else None


def judge_namespaces(setting: str, value: Mapping[Any, Any]) -> str | None:
    if 'default' not in value:
        return "has no 'default'"
    for namespace, handler in value.items():
        if not isinstance(namespace, str):
            return f'has the key {short_repr(namespace)}, which is no string'
        name = f'{setting}[{namespace!r}]'
        if (complaint := complaint_of_handler(name, handler)) is not None:
            return f'for {namespace!r} {complaint}'
    return None


def complaint_of_handler(name: str, value: Any) -> str | None:
    complaint = complaint_of_loading(name, value)
    if complaint is not None:
        return complaint
    handler = load(name, value)
    if not isinstance(handler, type):
        return f'must name a class, not {short_repr(handler)}'
    missing = missing_methods(handler, HANDLER_METHODS)
    return f'names a class that lacks {", ".join(missing)}' if missing else None


def judge_compression(value: Any) -> str | None:
    try:
        Compression.from_setting(value)
    except ValueError as exc:
        return str(exc).removeprefix('WS4REDIS_COMPRESSION').strip().rstrip('.')
    return None


def judge_subprotocols(value: Any) -> str | None:
    if not is_list_of(is_token)(value):
        return f'must be a list of names of subprotocols, not {short_repr(value)}'
    return 'names a subprotocol twice' if len(set(value)) < len(value) else None


SECONDS = must_be('a positive number of seconds', is_positive)
SECONDS_OR_ZERO = must_be('a number of seconds', is_not_negative)
SECONDS_OR_NONE = must_be('a positive number of seconds or None', or_none(is_positive))
BYTES = must_be('a positive whole number of bytes', is_positive_whole)
LIMIT = must_be('a positive whole number or None', or_none(is_positive_whole))

CALLBACK_HINT = 'Give a callable, or its dotted path like {example!r}; None switches it off.'
HANDLERS_HINT = 'Name subclasses of ws4redis.handlers.WebSocketHandler by their dotted paths.'

RULES = (
    Rule(
        'ws4redis.E001',
        'WEBSOCKET_URL',
        must_be(
            "a path that starts with '/'", lambda value: isinstance(value, str) and value[:1] == '/'
        ),
        "Give the prefix of all websockets' paths, such as '/ws/'.",
    ),
    Rule(
        'ws4redis.E002',
        'WS4REDIS_CONNECTION',
        judge_connection,
        f'The defaults are {dict(CONNECTION_DEFAULTS)}: name what differs. Other options are those '
        'of redis.Redis, and url.',
    ),
    Rule(
        'ws4redis.E003',
        'WS4REDIS_EXPIRE',
        must_be(
            'a whole number of seconds or None',
            or_none(lambda value: is_whole_number(value) and value >= 0),
        ),
        'Give the seconds for which messages are kept; 0 or None: they are not kept.',
    ),
    Rule(
        'ws4redis.E004',
        'WS4REDIS_PREFIX',
        must_be('a string', lambda value: isinstance(value, str)),
        "Give the prefix of all keys and channels in Redis without a colon, or ''.",
    ),
    Rule(
        'ws4redis.E005',
        'WS4REDIS_SUBSCRIBER',
        judge_subscriber,
        'Give the dotted path of a subclass of ws4redis.handshake.subscriber.RedisSubscriber.',
    ),
    Rule(
        'ws4redis.E006',
        'WS4REDIS_ALLOWED_CHANNELS',
        judge_callable('WS4REDIS_ALLOWED_CHANNELS'),
        CALLBACK_HINT.format(example='project.sockets.allowed_channels'),
    ),
    Rule(
        'ws4redis.E007',
        'WS4REDIS_PROCESS_REQUEST',
        judge_callable('WS4REDIS_PROCESS_REQUEST'),
        CALLBACK_HINT.format(example='project.sockets.process_request'),
    ),
    Rule(
        'ws4redis.E008',
        'WS4REDIS_HEARTBEAT',
        must_be('a string that is not empty, or None', or_none(is_filled_string)),
        "Give a string that no message equals, such as '--heartbeat--'; None: no heartbeat.",
    ),
    Rule(
        'ws4redis.E009',
        'WS4REDIS_SUBPROTOCOLS',
        judge_subprotocols,
        "Give a list of names as in the header Sec-WebSocket-Protocol, such as ['chat.v1'].",
    ),
    Rule(
        'ws4redis.E010',
        'WS4REDIS_COMPRESSION',
        judge_compression,
        "Give True, False, or a dictionary such as {'minimum_size': 256, 'level': 6}.",
    ),
    Rule(
        'ws4redis.E011',
        'WS4REDIS_MAX_MESSAGE_SIZE',
        BYTES,
        'Give the size of the largest message that a client may send.',
    ),
    Rule(
        'ws4redis.E012',
        'WS4REDIS_REDIS_TIMEOUT',
        SECONDS,
        'Give the seconds for which messages of clients wait while Redis is away.',
    ),
    Rule(
        'ws4redis.E013',
        'WS4REDIS_MAX_QUEUE_BYTES',
        BYTES,
        'Give how much may wait for one websocket before it is closed as too slow.',
    ),
    Rule(
        'ws4redis.E014',
        'WS4REDIS_PING_INTERVAL',
        must_be('a number of seconds or None', or_none(is_not_negative)),
        'Say every how many seconds a websocket is sent a PING; 0 or None: never.',
    ),
    Rule(
        'ws4redis.E015',
        'WS4REDIS_PING_TIMEOUT',
        SECONDS,
        'Give the seconds within which a client must answer a PING.',
    ),
    Rule(
        'ws4redis.E016',
        'WS4REDIS_CLOSE_TIMEOUT',
        SECONDS,
        'Give the seconds within which a client must answer a close frame.',
    ),
    Rule(
        'ws4redis.E017',
        'WS4REDIS_HANDSHAKE_TIMEOUT',
        SECONDS,
        'Give the seconds within which a handshake must be done.',
    ),
    Rule(
        'ws4redis.E018',
        'WS4REDIS_MAX_MESSAGES_PER_SECOND',
        must_be('a positive number or None', or_none(is_positive)),
        'Give how many messages a second one client may send; None: any number.',
    ),
    Rule(
        'ws4redis.E019',
        'WS4REDIS_MAX_CONNECTIONS',
        LIMIT,
        'Give how many websockets one process may hold; None: what its descriptors allow.',
    ),
    Rule(
        'ws4redis.E020',
        'WS4REDIS_MAX_CONNECTIONS_PER_USER',
        LIMIT,
        'Give how many websockets one user may have in a process; None: any number.',
    ),
    Rule(
        'ws4redis.E021',
        'WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS',
        LIMIT,
        'Give how many websockets one address may have in a process; None: any number.',
    ),
    Rule(
        'ws4redis.E022',
        'WS4REDIS_CLIENT_ADDRESS_HEADER',
        must_be('the name of a header, or None', or_none(is_token)),
        "Give the header in which your proxy puts the client's address, such as 'X-Real-IP'; None: "
        'the address that connects is the client.',
    ),
    Rule(
        'ws4redis.E023',
        'WS4REDIS_ALLOWED_ORIGINS',
        must_be('a list of origins, or None', or_none(is_list_of(is_origin))),
        "Give origins with their scheme, such as ['https://example.com', 'https://*.example.org']; "
        "['*'] lets every site connect.",
    ),
    Rule(
        'ws4redis.E024',
        'WS4REDIS_DRAIN_SECONDS',
        SECONDS_OR_ZERO,
        'Give the seconds over which websockets are closed when the server stops.',
    ),
    Rule(
        'ws4redis.E025',
        'WS4REDIS_STATISTICS_INTERVAL',
        SECONDS_OR_NONE,
        'Give every how many seconds statistics are logged; None: never.',
    ),
    Rule(
        'ws4redis.E026',
        'WS4REDIS_WORKER_THREADS',
        must_be('a positive whole number', is_positive_whole),
        'Give how many threads run sessions, callbacks and handlers.',
    ),
    Rule('ws4redis.E027', 'WS4REDIS_HANDLERS', judge_handlers, HANDLERS_HINT),
    Rule('ws4redis.E028', 'DEFAULT_WS_HANDLERS', judge_default_handlers, HANDLERS_HINT),
    Rule(
        'ws4redis.E029',
        'WEBSOCKET_ACCEPT_ALL',
        must_be('True or False', lambda value: isinstance(value, bool)),
        'True lets every view accept websockets; otherwise a view says so by its decorator.',
    ),
)


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong with the settings of ws4redis, errors first."""
    errors = [message for rule in RULES for message in rule.check()]
    errors += check_hiredis()
    # A comparison of settings makes sense once each is right by itself.
    return errors + check_unknown_settings() + ([] if errors else check_sizes())


def check_hiredis() -> list[CheckMessage]:
    if importlib.util.find_spec('hiredis') is not None:
        return []
    return [
        Error(
            'hiredis is not installed: the websocket loop of ws4redis reads Redis with it.',
            hint='Run `pip install hiredis`.',
            id='ws4redis.E030',
        )
    ]


def check_unknown_settings() -> list[CheckMessage]:
    """Warn of settings that look like ours and are not: a misspelt one has no effect."""
    known = {name for name in dir(Conf) if name.isupper()}
    return [
        Warning(
            f'{name} is no setting of ws4redis.',
            hint='Is it misspelt? See the reference of settings.',
            id='ws4redis.W101',
        )
        for name in sorted(dir(settings))
        if name.startswith('WS4REDIS_') and name not in known
    ]


def check_sizes() -> list[CheckMessage]:
    if conf.WS4REDIS_MAX_QUEUE_BYTES >= conf.WS4REDIS_MAX_MESSAGE_SIZE:
        return []
    return [
        Warning(
            'WS4REDIS_MAX_QUEUE_BYTES is smaller than WS4REDIS_MAX_MESSAGE_SIZE: a message that '
            'one client may send can close another.',
            hint='Let more bytes wait for a websocket than a message may have.',
            id='ws4redis.W102',
        )
    ]

"""All settings of ws4redis, each declared once: default, what is right, what it means, what to do.

The checks, the reference's tests and :data:`conf` derive from what is written here. A new setting
is one more attribute of :class:`Conf`, and its section in ``docs/reference/settings.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ws4redis.settings import judges
from ws4redis.settings.clients import ClientSettings
from ws4redis.settings.facilities import (
    Facilities,
    FacilityOptions,
    judge_facilities,
    table_of,
)
from ws4redis.settings.hooks import (
    judge_callback,
    judge_default_handlers,
    judge_handlers,
    judge_notification_store,
    judge_subscriber,
    load,
    load_callback,
)
from ws4redis.settings.judges import must_be, or_none
from ws4redis.settings.redis_options import CONNECTION_DEFAULTS, with_defaults
from ws4redis.settings.setting import Setting
from ws4redis.settings.topologies import judge_connection

if TYPE_CHECKING:
    from django.http import HttpRequest

AllowedChannels: TypeAlias = 'Callable[[HttpRequest, list[str]], Iterable[str] | None]'
ProcessRequest: TypeAlias = 'Callable[[HttpRequest], Any]'
Classes: TypeAlias = Mapping[str, str | type[Any]]

MEBIBYTE = 1024 * 1024
CALLBACK_HINT = 'Give a callable, or its dotted path like {example!r}; None switches it off.'
HANDLERS_HINT = 'Name subclasses of ws4redis.handlers.WebSocketHandler by their dotted paths.'


def key_of_header(name: str | None) -> str | None:
    """Return the key in ``request.META`` of a header, which a project may have written itself."""
    if name is None:
        return None
    key = name.upper().replace('-', '_')
    return key if key.startswith('HTTP_') or key == 'REMOTE_ADDR' else f'HTTP_{key}'


def with_slash(path: Any) -> Any:
    """Return a prefix with the slash at its end, which a project may leave out."""
    return path if not isinstance(path, str) or path.endswith('/') else f'{path}/'


def seconds_to_keep(value: Any) -> int | None:
    """Return for how long messages are kept; less than 0 switches it off, as in 0.6."""
    return 0 if judges.is_whole_number(value) and value < 0 else value


class Conf(ClientSettings):
    """Read the settings of ws4redis; use the instance ``ws4redis.conf.conf``."""

    # What tells websockets, and where Redis is

    WEBSOCKET_URL = Setting[str](
        'ws4redis.E001',
        default='/ws/',
        judge=must_be("a path that starts with '/'", judges.is_path),
        read=with_slash,
        about='The prefix of the paths of websockets',
        hint="Give the prefix of all websockets' paths, such as '/ws/'.",
    )
    WS4REDIS_CONNECTION = Setting[dict[str, Any]](
        'ws4redis.E002',
        default={},
        judge=judge_connection,
        read=with_defaults,
        about='Where Redis is, and how to talk to it',
        hint=f'The defaults are {dict(CONNECTION_DEFAULTS)}: name what differs. Other options are '
        'those of redis.Redis, and url; or name sentinels and service_name, or cluster.',
    )
    WS4REDIS_EXPIRE = Setting[int | None](
        'ws4redis.E003',
        default=3600,
        judge=must_be('a whole number of seconds or None', or_none(judges.is_whole_number)),
        read=seconds_to_keep,
        about="How many seconds a published message is also kept under its channel's key",
        hint='Give the seconds for which messages are kept; 0, -1 or None: they are not kept.',
    )
    WS4REDIS_PREFIX = Setting[str](
        'ws4redis.E004',
        default='',
        judge=must_be('a string', or_none(lambda value: isinstance(value, str))),
        read=lambda value: '' if value is None else value,
        about='The prefix of every key and every channel in Redis',
        hint="Give the prefix of all keys and channels in Redis without a colon; '' or None: none.",
    )

    WS4REDIS_ON_COMMIT = Setting[bool](
        'ws4redis.E071',
        default=False,
        judge=must_be('True or False', lambda value: isinstance(value, bool)),
        about='Whether publishers wait for the commit of the database transaction',
        hint='True lets messages be published when the transaction commits, False at once.',
    )

    WS4REDIS_NOTIFICATION_STORE = Setting[str | type[Any]](
        'ws4redis.E080',
        default='ws4redis.live.notification_store.RedisNotifications',
        judge=judge_notification_store,
        about='The class that keeps unread notifications',
        hint='Give a class, or its dotted path, with the methods add, unread, count and mark_read.',
    )

    # Policy: who may do what

    WS4REDIS_SUBSCRIBER = Setting[str | type[Any]](
        'ws4redis.E005',
        default='ws4redis.subscriber.RedisSubscriber',
        judge=judge_subscriber,
        about='The dotted path of the class that the websocket loop uses for each websocket',
        hint='Give the dotted path of a subclass of ws4redis.subscriber.RedisSubscriber.',
    )
    WS4REDIS_ALLOWED_CHANNELS = Setting['str | AllowedChannels | None'](
        'ws4redis.E006',
        default=None,
        judge=judge_callback('WS4REDIS_ALLOWED_CHANNELS', arguments=2),
        about='A callable, or its dotted path, that restricts what a websocket may do',
        hint=CALLBACK_HINT.format(example='project.sockets.allowed_channels'),
    )
    WS4REDIS_FACILITIES = Setting[Facilities](
        'ws4redis.E045',
        default={},
        judge=judge_facilities,
        about='The properties of facilities: histories, presence, and who may do what',
        hint="Map patterns to options, such as {'chat/*': {'HISTORY_SIZE': 100}}.",
    )
    WS4REDIS_PROCESS_REQUEST = Setting['str | ProcessRequest | None'](
        'ws4redis.E007',
        default=None,
        judge=judge_callback('WS4REDIS_PROCESS_REQUEST', arguments=1),
        about='A callable, or its dotted path, that is called with the request of each handshake',
        hint=CALLBACK_HINT.format(example='project.sockets.process_request'),
    )
    WS4REDIS_ALLOWED_ORIGINS = Setting[Sequence[str] | None](
        'ws4redis.E023',
        default=None,
        judge=must_be('a list of origins, or None', or_none(judges.is_list_of(judges.is_origin))),
        about='The sites whose pages may open websockets',
        hint="Give origins as browsers send them, such as ['https://example.com', "
        "'https://*.example.org', 'file://']; ['*'] lets every site connect.",
    )
    WS4REDIS_TOKEN_KEYS = Setting['str | Sequence[str] | None'](
        'ws4redis.E073',
        default=None,
        judge=must_be(
            'a key, a list of keys, or None',
            lambda value: (
                value is None
                or judges.is_filled_string(value)
                or (bool(value) and judges.is_list_of(judges.is_filled_string)(value))
            ),
        ),
        about='The keys with which tokens are signed and checked',
        hint='Give the secret of HMAC as text, or a public key (PEM), or a list of them, of which '
        'the first secret signs; None: a key is derived from SECRET_KEY.',
    )
    WEBSOCKET_ACCEPT_ALL = Setting[bool](
        'ws4redis.E029',
        default=False,
        judge=must_be('True or False', lambda value: isinstance(value, bool)),
        about='Whether every view accepts websockets',
        hint='True lets every view accept websockets; otherwise a view says so by its decorator.',
    )

    # Protocol

    WS4REDIS_HEARTBEAT = Setting[str | None](
        'ws4redis.E008',
        default=None,
        judge=must_be('a string or None', or_none(lambda value: isinstance(value, str))),
        read=lambda value: None if value == '' else value,
        about='A string',
        hint="Give a string that no message equals, such as '--heartbeat--'; None: no heartbeat.",
    )
    WS4REDIS_SUBPROTOCOLS = Setting[Sequence[str] | None](
        'ws4redis.E009',
        default=None,
        judge=judges.judge_subprotocols,
        about='The names of the subprotocols that your messages may follow',
        hint="Give a list of names as in the header Sec-WebSocket-Protocol, such as ['chat.v1']; "
        'None: any name.',
    )
    # It is on, since what speaks against it elsewhere does not hold here: no websocket has a
    # compressor of its own (about 300 KB), and a broadcast is compressed once. It costs about 2 µs
    # for each message of a client and 4 µs for each published one of 300 bytes, and saves some 70 %
    # of the bytes, which every websocket of the channel would be sent.
    WS4REDIS_COMPRESSION = Setting[bool | Mapping[str, int]](
        'ws4redis.E010',
        default=True,
        judge=judges.judge_compression,
        about='Whether messages are compressed',
        hint="Give True, False, or a dictionary such as {'minimum_size': 256, 'level': 6}.",
    )

    # Time, in seconds

    WS4REDIS_PING_INTERVAL = Setting[float | None](
        'ws4redis.E014',
        default=20,
        judge=must_be('a number of seconds or None', or_none(judges.is_not_negative)),
        about='The interval, in seconds, at which each client is sent a PING frame',
        hint='Give the seconds between two PINGs; 0 or None: none is sent.',
    )
    WS4REDIS_PING_TIMEOUT = Setting[float](
        'ws4redis.E015',
        default=20,
        judge=judges.SECONDS,
        about='How many seconds a client has to answer a PING',
        hint='Give the seconds within which a client must answer a PING.',
    )
    WS4REDIS_CLOSE_TIMEOUT = Setting[float](
        'ws4redis.E016',
        default=5,
        judge=judges.SECONDS,
        about='How many seconds a client has to answer a close frame',
        hint='Give the seconds within which a client must answer a close frame.',
    )
    WS4REDIS_HANDSHAKE_TIMEOUT = Setting[float](
        'ws4redis.E017',
        default=10,
        judge=judges.SECONDS,
        about='How many seconds a handshake may take',
        hint='Give the seconds within which a handshake must be done.',
    )
    WS4REDIS_REDIS_TIMEOUT = Setting[float](
        'ws4redis.E012',
        default=30,
        judge=judges.SECONDS,
        about='How many seconds messages of clients wait while Redis is away',
        hint='Give the seconds for which messages of clients wait while Redis is away.',
    )
    WS4REDIS_DRAIN_SECONDS = Setting[float](
        'ws4redis.E024',
        default=5,
        judge=judges.SECONDS_OR_ZERO,
        about='How many seconds closing all websockets takes when the server stops or reloads',
        hint='Give the seconds over which websockets are closed when the server stops.',
    )
    WS4REDIS_STATISTICS_INTERVAL = Setting[float | None](
        'ws4redis.E025',
        default=None,
        judge=judges.SECONDS_OR_NONE,
        about='The interval, in seconds, at which statistics go to the log `ws4redis`',
        hint='Give the seconds between two lines of statistics; None: none is logged.',
    )

    WS4REDIS_SNAPSHOT_INTERVAL = Setting[float | None](
        'ws4redis.E083',
        default=5,
        judge=judges.SECONDS_OR_NONE,
        about='The interval, in seconds, at which each process tells in Redis what it does',
        hint='Give the seconds between two snapshots of a process; None: none is made.',
    )
    WS4REDIS_METRICS_TOKEN = Setting[str | None](
        'ws4redis.E084',
        default=None,
        judge=must_be(
            'a string of 16 characters or more, or None',
            or_none(lambda value: isinstance(value, str) and len(value) >= 16),
        ),
        about='The secret by which Prometheus may read the metrics',
        hint='Give a random string, such as secrets.token_urlsafe() returns; None: none is taken.',
    )
    WS4REDIS_API_KEY = Setting[str | None](
        'ws4redis.E074',
        default=None,
        judge=must_be(
            'a string of 16 characters or more, or None',
            or_none(lambda value: isinstance(value, str) and len(value) >= 16),
        ),
        about='The secret by which other programs may use the API',
        hint='Give a random string, such as secrets.token_urlsafe() returns; None: nobody may.',
    )
    WS4REDIS_REVALIDATE_SECONDS = Setting[float | None](
        'ws4redis.E072',
        default=300,
        judge=must_be('a number of seconds or None', or_none(judges.is_not_negative)),
        about='The interval, in seconds, at which the session and user of open connections are '
        'looked up',
        hint='Give the seconds within which each session with open connections is looked up once; '
        '0 or None: only when something tells that it has changed.',
    )

    # Limits

    WS4REDIS_MAX_MESSAGE_SIZE = Setting[int](
        'ws4redis.E011',
        default=MEBIBYTE,
        judge=judges.BYTES,
        about='The size of the largest message that a client may send',
        hint='Give the size of the largest message that a client may send.',
    )
    WS4REDIS_MAX_QUEUE_BYTES = Setting[int](
        'ws4redis.E013',
        default=MEBIBYTE,
        judge=judges.BYTES,
        about='How much may wait for a client that does not read',
        hint='Give how much may wait for one websocket before it is closed as too slow.',
    )
    WS4REDIS_MAX_TOTAL_QUEUE_BYTES = Setting[int](
        'ws4redis.E046',
        default=256 * MEBIBYTE,
        judge=judges.BYTES,
        about='How much memory may be taken by all that waits for clients of a process',
        hint='Give how much may wait for all websockets of a process before the longest queues are '
        'given up.',
    )
    WS4REDIS_MAX_MESSAGES_PER_SECOND = Setting[float | None](
        'ws4redis.E018',
        default=1000,
        judge=judges.RATE,
        about='How many messages of one websocket are taken a second',
        hint='Give how many messages of one websocket are taken a second; None: any number.',
    )
    # No more than may wait for a websocket: one who sends as fast as he may does not cut off those
    # who read a little faster than that.
    WS4REDIS_MAX_BYTES_PER_SECOND = Setting[float | None](
        'ws4redis.E040',
        default=MEBIBYTE,
        judge=judges.RATE,
        about='How many bytes of one websocket are taken a second',
        hint='Give how many bytes of one websocket are taken a second; None: any number.',
    )
    WS4REDIS_MAX_PINGS_PER_SECOND = Setting[float | None](
        'ws4redis.E041',
        default=50,
        judge=judges.RATE,
        about='How many pings and pongs of one websocket are taken a second',
        hint='Give how many pings and pongs of one websocket are taken a second; None: any number.',
    )
    WS4REDIS_MAX_KEPT_BYTES = Setting[int | None](
        'ws4redis.E050',
        default=64 * MEBIBYTE,
        judge=must_be(
            'a positive whole number of bytes, or None', or_none(judges.is_positive_whole)
        ),
        about='How much the clients of one process may make Redis keep',
        hint='Give how many bytes of messages the clients of one process may make Redis keep, 512 '
        'bytes for each key included; None: any number.',
    )
    WS4REDIS_TAIL_BYTES = Setting[int](
        'ws4redis.E047',
        default=64 * MEBIBYTE,
        judge=judges.BYTES,
        about='How much memory a process uses for the last messages of channels with a history',
        hint='Give how many bytes of messages a process keeps for those who come back; what is not '
        'in memory is read from Redis.',
    )
    WS4REDIS_MAX_CONNECTIONS = Setting[int | None](
        'ws4redis.E019',
        default=None,
        judge=judges.LIMIT,
        about='How many websockets one process holds',
        hint='Give how many websockets one process may hold; None: what its descriptors allow.',
    )
    WS4REDIS_MAX_WAITING_HANDSHAKES = Setting[int](
        'ws4redis.E082',
        default=10_000,
        judge=must_be('a positive whole number', judges.is_positive_whole),
        about='How many handshakes may wait for sessions, users and callbacks in a process',
        hint='Give how many handshakes may wait in one process.',
    )
    WS4REDIS_MAX_CONNECTIONS_PER_USER = Setting[int | None](
        'ws4redis.E020',
        default=None,
        judge=judges.LIMIT,
        about='How many websockets one user may have in a process',
        hint='Give how many websockets one user may have in a process; None: any number.',
    )
    WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS = Setting[int | None](
        'ws4redis.E021',
        default=None,
        judge=judges.LIMIT,
        about='How many websockets one client address may have in a process',
        hint='Give how many websockets one address may have in a process; None: any number.',
    )
    WS4REDIS_CLIENT_ADDRESS_HEADER = Setting[str | None](
        'ws4redis.E022',
        default=None,
        judge=must_be('the name of a header, or None', or_none(judges.is_token)),
        read=key_of_header,
        about="The header in which your proxy puts the client's address",
        hint="Give the header in which your proxy puts the client's address, such as 'X-Real-IP'; "
        'None: the address that connects is the client.',
    )
    WS4REDIS_TRUSTED_PROXIES = Setting[Sequence[str]](
        'ws4redis.E081',
        default=(),
        judge=must_be(
            "a list of addresses and networks, such as '10.0.0.0/8', or 'unix'",
            judges.is_list_of(judges.is_proxy),
        ),
        about='The proxies that are believed when they say who the client is',
        hint="List your proxies' addresses or networks; 'unix' is whoever comes by a Unix socket.",
    )
    WS4REDIS_WORKER_THREADS = Setting[int](
        'ws4redis.E026',
        default=16,
        judge=must_be('a positive whole number', judges.is_positive_whole),
        about='How many threads each pool of a process may have',
        hint='Give how many threads run sessions, callbacks and handlers.',
    )

    # Handlers of messages

    WS4REDIS_HANDLERS = Setting[Classes](
        'ws4redis.E027',
        default={},
        judge=judge_handlers,
        about='Handlers for messages from websockets, under any server',
        hint=HANDLERS_HINT,
    )
    DEFAULT_WS_HANDLERS = Setting[Classes](
        'ws4redis.E028',
        default={},
        judge=judge_default_handlers,
        about='Handlers by namespace',
        hint=HANDLERS_HINT,
    )

    @property
    def key_prefix(self) -> str:
        """Return the prefix of all keys and channels with its colon; empty when there is none."""
        prefix = self.WS4REDIS_PREFIX
        return f'{prefix}:' if prefix else ''

    @property
    def uses_cluster(self) -> bool:
        """Tell whether ``WS4REDIS_CONNECTION`` names a Cluster, where pub/sub is sharded."""
        return 'cluster' in self.WS4REDIS_CONNECTION

    @property
    def publish_word(self) -> bytes:
        """Return the command that publishes."""
        return b'SPUBLISH' if self.uses_cluster else b'PUBLISH'

    def facility_options(self, facility: str) -> FacilityOptions:
        """Return what ``WS4REDIS_FACILITIES`` says of a facility."""
        return table_of(self.WS4REDIS_FACILITIES).options_of(facility)

    # Objects that settings name

    def load_subscriber(self) -> type[Any]:
        """Return the class that ``WS4REDIS_SUBSCRIBER`` names."""
        return cast('type[Any]', load('WS4REDIS_SUBSCRIBER', self.WS4REDIS_SUBSCRIBER))

    def load_allowed_channels(self) -> AllowedChannels | None:
        """Return the callable that ``WS4REDIS_ALLOWED_CHANNELS`` names, or None."""
        value = self.WS4REDIS_ALLOWED_CHANNELS
        return None if value is None else load_callback('WS4REDIS_ALLOWED_CHANNELS', value, 2)

    def load_process_request(self) -> ProcessRequest | None:
        """Return the callable that ``WS4REDIS_PROCESS_REQUEST`` names, or None."""
        value = self.WS4REDIS_PROCESS_REQUEST
        return None if value is None else load_callback('WS4REDIS_PROCESS_REQUEST', value, 1)


SETTINGS: Final[Mapping[str, Setting[Any]]] = {
    name: setting
    for declaring in Conf.__mro__
    for name, setting in vars(declaring).items()
    if isinstance(setting, Setting)
}
conf = Conf()

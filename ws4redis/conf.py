"""The settings: one property each, read from ``django.conf.settings`` on every access.

Nothing is read at import, so ``override_settings`` takes effect at once. The properties give what
the project wrote, or the default beside it; the ``load_*`` methods turn dotted paths into objects.
What the values must look like is stated once, in ``checks.py``; :meth:`Conf.validate` applies it.
"""

# ruff: noqa: N802 - the properties bear the names of the settings

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from django.http import HttpRequest

T = TypeVar('T')

AllowedChannels: TypeAlias = 'Callable[[HttpRequest, list[str]], Iterable[str] | None]'
ProcessRequest: TypeAlias = 'Callable[[HttpRequest], Any]'

CONNECTION_DEFAULTS: Mapping[str, Any] = {
    'host': 'localhost',
    'port': 6379,
    'db': 0,
    'password': None,
}
KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


def _setting(name: str, *, default: T) -> T:
    return cast('T', getattr(settings, name, default))


class Conf:
    """Read the settings of ws4redis; use the instance ``ws4redis.conf.conf``."""

    # What tells websockets, and where Redis is

    @property
    def WEBSOCKET_URL(self) -> str:
        """Return the prefix of the paths under which requests are websockets."""
        return _setting('WEBSOCKET_URL', default='/ws/')

    @property
    def WS4REDIS_CONNECTION(self) -> dict[str, Any]:
        """Return the options of the connection to Redis, the defaults filled in.

        With ``url`` no defaults are filled in, since the URL says it all.
        """
        given = _setting('WS4REDIS_CONNECTION', default=cast('dict[str, Any]', {}))
        if not isinstance(given, Mapping):
            raise ImproperlyConfigured(
                f'WS4REDIS_CONNECTION must be a dictionary, not {type(given).__name__}.'
            )
        return dict(given) if 'url' in given else {**CONNECTION_DEFAULTS, **given}

    @property
    def WS4REDIS_EXPIRE(self) -> int | None:
        """Return for how many seconds a published message is kept; 0 and None: not at all."""
        return _setting('WS4REDIS_EXPIRE', default=3600)

    @property
    def WS4REDIS_PREFIX(self) -> str:
        """Return the prefix of all keys and channels, without the colon that follows it."""
        return _setting('WS4REDIS_PREFIX', default='')

    # Policy: who may do what

    @property
    def WS4REDIS_SUBSCRIBER(self) -> str | type[Any]:
        """Return the dotted path of the subscriber's class; see :meth:`load_subscriber`."""
        return _setting('WS4REDIS_SUBSCRIBER', default='ws4redis.subscriber.RedisSubscriber')

    @property
    def WS4REDIS_ALLOWED_CHANNELS(self) -> str | AllowedChannels | None:
        """Return the callback that restricts channels; see :meth:`load_allowed_channels`."""
        return _setting('WS4REDIS_ALLOWED_CHANNELS', default=None)

    @property
    def WS4REDIS_PROCESS_REQUEST(self) -> str | ProcessRequest | None:
        """Return the callback that authenticates; see :meth:`load_process_request`."""
        return _setting('WS4REDIS_PROCESS_REQUEST', default=None)

    @property
    def WS4REDIS_ALLOWED_ORIGINS(self) -> Sequence[str] | None:
        """Return the origins that may connect besides the host itself; ``['*']``: all."""
        return _setting('WS4REDIS_ALLOWED_ORIGINS', default=None)

    @property
    def WEBSOCKET_ACCEPT_ALL(self) -> bool:
        """Tell whether every view accepts websockets, not only those that say so."""
        return _setting('WEBSOCKET_ACCEPT_ALL', default=False)

    # Protocol

    @property
    def WS4REDIS_HEARTBEAT(self) -> str | None:
        """Return the string that is sent to idle websockets and ignored when received."""
        return _setting('WS4REDIS_HEARTBEAT', default=None)

    @property
    def WS4REDIS_SUBPROTOCOLS(self) -> Sequence[str]:
        """Return the subprotocols that are spoken; the client's order decides."""
        return _setting('WS4REDIS_SUBPROTOCOLS', default=())

    @property
    def WS4REDIS_COMPRESSION(self) -> bool | Mapping[str, int]:
        """Return whether messages are compressed, or ``minimum_size`` (bytes) and ``level``.

        It is on, since what speaks against it elsewhere does not hold here: no websocket has a
        compressor of its own (about 300 KB), and a broadcast is compressed once. It costs about
        2 µs for each message of a client and 4 µs for each published one of 300 bytes, and saves
        some 70 % of the bytes, which every websocket of the channel would be sent.
        """
        return _setting('WS4REDIS_COMPRESSION', default=True)

    # Time, in seconds

    @property
    def WS4REDIS_PING_INTERVAL(self) -> float | None:
        """Return every how many seconds a PING is sent; None and 0: never."""
        return _setting('WS4REDIS_PING_INTERVAL', default=20)

    @property
    def WS4REDIS_PING_TIMEOUT(self) -> float:
        """Return for how many seconds the answer to a PING is awaited."""
        return _setting('WS4REDIS_PING_TIMEOUT', default=20)

    @property
    def WS4REDIS_CLOSE_TIMEOUT(self) -> float:
        """Return for how many seconds the answer to a close frame is awaited."""
        return _setting('WS4REDIS_CLOSE_TIMEOUT', default=5)

    @property
    def WS4REDIS_HANDSHAKE_TIMEOUT(self) -> float:
        """Return within how many seconds a handshake must be done."""
        return _setting('WS4REDIS_HANDSHAKE_TIMEOUT', default=10)

    @property
    def WS4REDIS_REDIS_TIMEOUT(self) -> float:
        """Return for how many seconds messages of clients wait while Redis is away."""
        return _setting('WS4REDIS_REDIS_TIMEOUT', default=30)

    @property
    def WS4REDIS_DRAIN_SECONDS(self) -> float:
        """Return over how many seconds websockets are closed when the server stops."""
        return _setting('WS4REDIS_DRAIN_SECONDS', default=5)

    @property
    def WS4REDIS_STATISTICS_INTERVAL(self) -> float | None:
        """Return every how many seconds statistics are logged; None: never."""
        return _setting('WS4REDIS_STATISTICS_INTERVAL', default=None)

    # Limits

    @property
    def WS4REDIS_MAX_MESSAGE_SIZE(self) -> int:
        """Return the size in bytes of the largest message that a client may send."""
        return _setting('WS4REDIS_MAX_MESSAGE_SIZE', default=MEBIBYTE)

    @property
    def WS4REDIS_MAX_QUEUE_BYTES(self) -> int:
        """Return how many bytes may wait for one websocket."""
        return _setting('WS4REDIS_MAX_QUEUE_BYTES', default=MEBIBYTE)

    @property
    def WS4REDIS_MAX_MESSAGES_PER_SECOND(self) -> float | None:
        """Return how many messages a second one client may send; None: any number."""
        return _setting('WS4REDIS_MAX_MESSAGES_PER_SECOND', default=None)

    @property
    def WS4REDIS_MAX_CONNECTIONS(self) -> int | None:
        """Return how many websockets a process holds; None: what its descriptors allow."""
        return _setting('WS4REDIS_MAX_CONNECTIONS', default=None)

    @property
    def WS4REDIS_MAX_CONNECTIONS_PER_USER(self) -> int | None:
        """Return how many websockets of one user a process holds; None: any number."""
        return _setting('WS4REDIS_MAX_CONNECTIONS_PER_USER', default=None)

    @property
    def WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS(self) -> int | None:
        """Return how many websockets of one client address a process holds; None: any number."""
        return _setting('WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS', default=None)

    @property
    def WS4REDIS_CLIENT_ADDRESS_HEADER(self) -> str | None:
        """Return the key in ``request.META`` of the proxy's header with the client's address.

        A project may write ``X-Forwarded-For`` or ``HTTP_X_FORWARDED_FOR``: the latter is returned.
        """
        name = _setting('WS4REDIS_CLIENT_ADDRESS_HEADER', default=cast('str | None', None))
        if name is None:
            return None
        key = name.upper().replace('-', '_')
        return key if key.startswith('HTTP_') or key == 'REMOTE_ADDR' else f'HTTP_{key}'

    @property
    def WS4REDIS_WORKER_THREADS(self) -> int:
        """Return how many threads run what may block: sessions, callbacks, handlers."""
        return _setting('WS4REDIS_WORKER_THREADS', default=16)

    # Handlers of messages

    @property
    def WS4REDIS_HANDLERS(self) -> Mapping[str, str | type[Any]]:
        """Return regular expressions of paths and their handlers, or namespaces with handlers."""
        return _setting('WS4REDIS_HANDLERS', default=cast('Mapping[str, str | type[Any]]', {}))

    @property
    def DEFAULT_WS_HANDLERS(self) -> Mapping[str, str | type[Any]]:
        """Return namespaces and their handlers."""
        return _setting('DEFAULT_WS_HANDLERS', default=cast('Mapping[str, str | type[Any]]', {}))

    # Objects that settings name

    def load_subscriber(self) -> type[Any]:
        """Return the class that ``WS4REDIS_SUBSCRIBER`` names."""
        return cast('type[Any]', load('WS4REDIS_SUBSCRIBER', self.WS4REDIS_SUBSCRIBER))

    def load_allowed_channels(self) -> AllowedChannels | None:
        """Return the callable that ``WS4REDIS_ALLOWED_CHANNELS`` names, or None."""
        value = self.WS4REDIS_ALLOWED_CHANNELS
        return None if value is None else load('WS4REDIS_ALLOWED_CHANNELS', value)

    def load_process_request(self) -> ProcessRequest | None:
        """Return the callable that ``WS4REDIS_PROCESS_REQUEST`` names, or None."""
        value = self.WS4REDIS_PROCESS_REQUEST
        return None if value is None else load('WS4REDIS_PROCESS_REQUEST', value)

    def validate(self) -> None:
        """Raise ``ImproperlyConfigured`` with the first error that the system checks find.

        The websocket loop calls this when it starts, since no one may have run the checks.
        """
        from ws4redis.checks import check_settings

        for error in check_settings():
            if error.is_serious():
                raise ImproperlyConfigured(f'{error.msg} {error.hint} ({error.id})')


def load(name: str, value: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the callable that a setting holds or names by its dotted path.

    ``name`` is the setting's name, for the error; ``value`` a callable, or a dotted path like
    ``'project.sockets.allowed_channels'``. Raise ``ImproperlyConfigured`` when the path does not
    import, or leads to something that cannot be called.
    """
    loaded = value
    if isinstance(value, str):
        try:
            loaded = import_string(value)
        except Exception as exc:
            # Not only ImportError: the named module runs here, and may fail in any way.
            raise ImproperlyConfigured(
                f'{name} names {value!r}, which does not import: {type(exc).__name__}: {exc}'
            ) from exc
    if not callable(loaded):
        raise ImproperlyConfigured(
            f'{name} must be a callable or the dotted path of one, not {value!r}.'
        )
    return loaded


conf = Conf()

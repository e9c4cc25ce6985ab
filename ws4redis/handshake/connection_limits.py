"""How many websockets there may be: in all, per address and per user."""

from __future__ import annotations

import resource
from collections import Counter
from typing import TYPE_CHECKING, Literal

from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.loop.native import original

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# Descriptors left for the server, Redis, databases, log files and handshakes.
RESERVED_DESCRIPTORS = 256
# In containers there is often practically no limit of descriptors; memory has one all the same.
MOST_CONNECTIONS_BY_DEFAULT = 65536


class Place:
    """The place that one websocket takes among the limits, from its handshake to its end."""

    __slots__ = ('address', 'user')

    def __init__(self, address: str | None) -> None:
        self.address = address
        # False: given back. There is one of these for each websocket, so there is no flag for it.
        self.user: str | Literal[False] | None = None

    @property
    def is_taken(self) -> bool:
        return self.user is not False


class ConnectionLimits:
    """Count websockets against the limits of the settings. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = original('_thread', 'allocate_lock')()
        self._taken = 0
        self._by_address: Counter[str] = Counter()
        self._by_user: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """The number of places that are taken, by open websockets and by handshakes."""
        return self._taken

    def take_place(self, environ: WSGIEnvironment) -> Place:
        """Take a place for a handshake; raise ``HandshakeError`` 503 or 429 if there is none."""
        per_address = conf.WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS
        place = Place(client_address(environ) if per_address is not None else None)
        with self._lock:
            if self._taken >= max_connections():
                raise HandshakeError(503, 'There are too many websockets.', {'Retry-After': '5'})
            if place.address is not None and per_address is not None:
                if self._by_address[place.address] >= per_address:
                    raise HandshakeError(429, 'There are too many websockets from your address.')
                self._by_address[place.address] += 1
            self._taken += 1
        return place

    def take_place_of_user(self, place: Place, user: str) -> None:
        """Count the place for a user as well; raise ``HandshakeError`` 429 if that is too many.

        A place that was given back meanwhile is not counted: raise ``HandshakeError`` 503.
        """
        per_user = conf.WS4REDIS_MAX_CONNECTIONS_PER_USER
        with self._lock:
            if not place.is_taken:
                raise HandshakeError(503, 'The websocket has ended.')
            if per_user is not None and self._by_user[user] >= per_user:
                raise HandshakeError(429, 'You have too many websockets.')
            self._by_user[user] += 1
            place.user = user

    def give_back(self, place: Place) -> None:
        """Give a place back; a second time does nothing."""
        with self._lock:
            if not place.is_taken:
                return
            user, place.user = place.user, False
            self._taken -= 1
            for counter, name in ((self._by_address, place.address), (self._by_user, user)):
                if isinstance(name, str):
                    counter[name] -= 1
                    if not counter[name]:
                        del counter[name]


def max_connections() -> int:
    """Return the limit of websockets in this process; by default what its descriptors allow."""
    limit = conf.WS4REDIS_MAX_CONNECTIONS
    if limit is not None:
        return limit
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS_BY_DEFAULT
    allowed = max(descriptors // 2, descriptors - RESERVED_DESCRIPTORS)
    return min(allowed, MOST_CONNECTIONS_BY_DEFAULT)


def client_address(environ: WSGIEnvironment) -> str:
    """Return the address of the client.

    It is taken from a proxy's header only where ``WS4REDIS_CLIENT_ADDRESS_HEADER`` names one, since
    a client can send any header itself. Of a list the last entry counts: that of our own proxy.
    """
    header = conf.WS4REDIS_CLIENT_ADDRESS_HEADER
    if header is not None:
        address: str = environ.get(header, '').rpartition(',')[2].strip()
        if address:
            return address
    remote: str = environ.get('REMOTE_ADDR', '')
    return remote


connection_limits = ConnectionLimits()
"""The places of this process."""

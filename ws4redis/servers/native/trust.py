"""Which proxies are believed when they say who the client is."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

UNIX = 'unix'

# By these a proxy tells of its client; from others they are no more than a claim.
FORWARDED = (
    'forwarded',
    'x-forwarded-for',
    'x-forwarded-proto',
    'x-forwarded-host',
    'x-forwarded-port',
)


class Client(NamedTuple):
    """The client of a request, as the nearest proxy that is trusted saw it."""

    address: str
    is_secure: bool


class TrustedProxies:
    """The addresses and networks of ``WS4REDIS_TRUSTED_PROXIES``.

    Where there are none nobody is believed, and nothing is taken away from a request.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._trusts_unix = UNIX in entries
        self._networks = [ipaddress.ip_network(entry) for entry in entries if entry != UNIX]
        self.trusts = lru_cache(4096)(self._trusts)

    def __bool__(self) -> bool:
        return self._trusts_unix or bool(self._networks)

    def _trusts(self, address: str) -> bool:
        """Tell whether whoever has an address is believed; a Unix socket has the address ``''``."""
        if not address:
            return self._trusts_unix
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(ip, 'ipv4_mapped', None)
        return any((mapped or ip) in network for network in self._networks)

    def client_of(self, address: str, headers: dict[str, str], *, is_secure: bool) -> Client:
        """Return who sends a request that came from ``address``.

        What others than our proxies say of it is taken out of ``headers``.
        """
        if not self:
            return Client(address, is_secure)
        if not self.trusts(address):
            for name in FORWARDED:
                headers.pop(name, None)
            return Client(address, is_secure)
        return Client(self._behind(address, headers), _scheme(headers, is_secure=is_secure))

    def _behind(self, address: str, headers: Mapping[str, str]) -> str:
        """Return the last address in the chain that is not one of our proxies'."""
        for entry in reversed(headers.get('x-forwarded-for', '').split(',')):
            entry = entry.strip()
            try:
                ipaddress.ip_address(entry)
            except ValueError:
                # Whatever stands before it cannot be believed.
                break
            address = entry
            if not self.trusts(entry):
                break
        return address


def _scheme(headers: Mapping[str, str], *, is_secure: bool) -> bool:
    said = headers.get('x-forwarded-proto', '').rpartition(',')[2].strip().lower()
    return said in ('https', 'wss') if said else is_secure

"""What the answer to a failed handshake means, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult

from django.conf import settings
from django.http.request import split_domain_port, validate_host

UPGRADE_HEADERS = (
    'A proxy drops the headers of the upgrade. NGINX: proxy_http_version 1.1; proxy_set_header '
    'Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; Apache: mod_proxy_wstunnel, and '
    'ws:// in ProxyPass.'
)
HOST_ADVICE = 'NGINX: proxy_set_header Host $http_host; Apache: ProxyPreserveHost On.'
# As Django itself does with DEBUG and no ALLOWED_HOSTS.
HOSTS_OF_DEBUG = ['.localhost', '127.0.0.1', '[::1]']

REMEDIES = {
    200: 'Django or a web server answered, not the websocket loop: pass WEBSOCKET_URL on to it.',
    301: 'Something redirects: use the address it redirects to (wss:// where https is forced).',
    302: 'Something redirects, perhaps a login: exclude WEBSOCKET_URL from it.',
    400: f'{UPGRADE_HEADERS} Or the host is not in ALLOWED_HOSTS.',
    403: 'WS4REDIS_ALLOWED_CHANNELS, WS4REDIS_PROCESS_REQUEST or the subscriber refuses the '
    'handshake, or a proxy does: --cookie makes the doctor the user of a session.',
    404: 'The request reached Django instead of the websocket loop, or the path does not lie under '
    'WEBSOCKET_URL: a proxy must not take the prefix away.',
    426: 'Something between here and the loop changes Sec-WebSocket-Version.',
    429: 'WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS or _PER_USER is reached.',
    500: 'A callback raised: the log of the websocket loop has the traceback.',
    501: 'The server cannot hand over its sockets; the body and the log say more.',
    502: 'The proxy cannot reach the websocket loop: is it running, on that address or socket, and '
    'may the proxy open the socket?',
    503: 'The websocket loop is full or stopping, or the proxy knows no server behind it.',
    504: 'The websocket loop does not answer the proxy in time.',
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a handshake; headers by their names in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ''


def own_origin(url: SplitResult) -> str:
    """Return the origin of a page on the site that a websocket's URL belongs to."""
    return f'http{"s" * (url.scheme == "wss")}://{host_of(url)}'


def host_of(url: SplitResult) -> str:
    """Return the ``Host`` that a client sends: no user, and the port if there is one."""
    return url.netloc.rpartition('@')[2]


def remedy_for(answer: Answer, url: SplitResult, origin: str | None) -> str:
    """Return what to do about an answer other than 101 to a handshake for a URL.

    Our own answers of the same status differ in their bodies.
    """
    if answer.status == 400 and 'must upgrade' in answer.body:
        return UPGRADE_HEADERS
    if answer.status == 400 and 'ALLOWED_HOSTS' in answer.body:
        return _remedy_for_host(host_of(url))
    if answer.status == 403 and 'this origin' in answer.body:
        return _remedy_for_origin(url, origin)
    return REMEDIES.get(answer.status, 'Look at the logs of the proxy and the websocket loop.')


def _remedy_for_host(host: str) -> str:
    allowed = settings.ALLOWED_HOSTS or (HOSTS_OF_DEBUG if settings.DEBUG else [])
    if validate_host(split_domain_port(host)[0], allowed):
        return (
            f'ALLOWED_HOSTS has {host!r}, so a proxy puts another Host in its place. {HOST_ADVICE}'
        )
    return f'Add {split_domain_port(host)[0] or host!r} to ALLOWED_HOSTS.'


def _remedy_for_origin(url: SplitResult, origin: str | None) -> str:
    if origin != own_origin(url):
        return f'If pages on {origin} may connect, name it in WS4REDIS_ALLOWED_ORIGINS.'
    remedy = (
        'It is the origin of that very site, so browsers are refused as well: a proxy puts another '
        f'Host in place of {host_of(url)!r}. {HOST_ADVICE}'
    )
    if url.scheme == 'wss':
        remedy += (
            ' Or the websocket loop does not know of the TLS: let the proxy send '
            'X-Forwarded-Proto, and set SECURE_PROXY_SSL_HEADER.'
        )
    return remedy

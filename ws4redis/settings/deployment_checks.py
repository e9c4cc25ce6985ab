"""The warnings of ``manage.py check --deploy``: settings that work, but are not safe in public.

They are described in ``docs/reference/checks.md``.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
from typing import Any

import redis
from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's name

from ws4redis.conf import conf
from ws4redis.settings.checks import check_settings
from ws4redis.settings.topologies import target_of

SHORTEST_HEARTBEAT = 8


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Return warnings about what should not be in production; none while there are errors."""
    if any(message.is_serious() for message in check_settings()):
        return []
    return [
        *check_open_channels(),
        *check_origins(),
        *check_hosts(),
        *check_heartbeat(),
        *check_redis(),
        *check_pings(),
        *check_session_engine(),
        *check_accepting_views(),
    ]


def check_open_channels() -> list[CheckMessage]:
    if conf.WS4REDIS_ALLOWED_CHANNELS is not None or _facilities_decide():
        return []
    return [
        Warning(
            'WS4REDIS_ALLOWED_CHANNELS is not set: every client may publish on, and subscribe to, '
            'every facility for which WS4REDIS_FACILITIES does not say who may.',
            hint="Name a callable that returns the channels a request may use; or give '*', and "
            'all other facilities, a SUBSCRIBE and a PUBLISH.',
            id='ws4redis.W001',
        )
    ]


def _facilities_decide() -> bool:
    """Tell whether WS4REDIS_FACILITIES says of every facility who may subscribe and publish."""
    facilities = conf.WS4REDIS_FACILITIES
    return '*' in facilities and all(
        {'SUBSCRIBE', 'PUBLISH'} <= options.keys() for options in facilities.values()
    )


def check_origins() -> list[CheckMessage]:
    if '*' not in (conf.WS4REDIS_ALLOWED_ORIGINS or ()):
        return []
    return [
        Warning(
            "WS4REDIS_ALLOWED_ORIGINS holds '*': a page of any site can open websockets with the "
            'cookies of its visitors.',
            hint='Name the origins that may connect.',
            id='ws4redis.W002',
        )
    ]


def check_hosts() -> list[CheckMessage]:
    if '*' not in settings.ALLOWED_HOSTS:
        return []
    return [
        Warning(
            "ALLOWED_HOSTS holds '*': the Origin of a websocket is compared with a host that the "
            'client chose.',
            hint='Name your hosts.',
            id='ws4redis.W003',
        )
    ]


def check_heartbeat() -> list[CheckMessage]:
    heartbeat = conf.WS4REDIS_HEARTBEAT
    if heartbeat is None or not could_be_a_message(heartbeat):
        return []
    return [
        Warning(
            f'WS4REDIS_HEARTBEAT is {heartbeat!r}, which could be a message: such a message is '
            'never delivered.',
            hint="Give a string that nobody sends, such as '--heartbeat--'.",
            id='ws4redis.W004',
        )
    ]


def could_be_a_message(text: str) -> bool:
    """Tell whether a person or a program may well send this: a word, some JSON, something short."""
    return len(text) < SHORTEST_HEARTBEAT or text.isalpha() or ' ' in text or is_json(text)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# Redis


def check_redis() -> list[CheckMessage]:
    target = target_of(conf.WS4REDIS_CONNECTION)
    arguments = target.arguments
    warnings = check_shared_channels(arguments)
    if issubclass(target.connection_class, redis.SSLConnection):
        return warnings + check_certificates(arguments)
    if issubclass(target.connection_class, redis.UnixDomainSocketConnection):
        return warnings
    hosts = [node.host for node in target.nodes] or [arguments.get('host', 'localhost')]
    host = next((host for host in hosts if not is_this_machine(host)), None)
    return warnings if host is None else warnings + check_plain_connection(host, arguments)


def check_plain_connection(host: str, arguments: dict[str, Any]) -> list[CheckMessage]:
    if arguments.get('password') or arguments.get('credential_provider'):
        return [
            Warning(
                f'The password of Redis is sent to {host} without TLS.',
                hint="Set 'ssl': True in WS4REDIS_CONNECTION, or give a rediss:// URL.",
                id='ws4redis.W005',
            )
        ]
    return [
        Warning(
            f'Redis on {host} is used without a password: whoever reaches it can publish to every '
            'websocket.',
            hint='Give Redis a password and name it in WS4REDIS_CONNECTION, together with TLS.',
            id='ws4redis.W006',
        )
    ]


def is_this_machine(host: str) -> bool:
    if host in {'localhost', 'ip6-localhost'}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_certificates(arguments: dict[str, Any]) -> list[CheckMessage]:
    unchecked = arguments.get('ssl_cert_reqs', 'required') in {'none', None, ssl.CERT_NONE}
    if not unchecked and arguments.get('ssl_check_hostname', True):
        return []
    return [
        Warning(
            'WS4REDIS_CONNECTION uses TLS, but does not verify whom it talks to.',
            hint="Remove 'ssl_cert_reqs' and 'ssl_check_hostname', and name the authority in "
            "'ssl_ca_certs' if it is your own.",
            id='ws4redis.W007',
        )
    ]


def check_shared_channels(arguments: dict[str, Any]) -> list[CheckMessage]:
    if int(arguments.get('db') or 0) == 0 or conf.WS4REDIS_PREFIX:
        return []
    return [
        Warning(
            'WS4REDIS_CONNECTION selects a database, but WS4REDIS_PREFIX is empty: Redis has one '
            'set of channels for all its databases, so projects on one Redis get the messages of '
            'each other.',
            hint='Give each project a WS4REDIS_PREFIX of its own.',
            id='ws4redis.W008',
        )
    ]


# The rest


def check_pings() -> list[CheckMessage]:
    if conf.WS4REDIS_PING_INTERVAL:
        return []
    return [
        Warning(
            'WS4REDIS_PING_INTERVAL is off: a client that vanishes is never noticed, and proxies '
            'close idle websockets.',
            hint="Set it to less than the proxy's time-out, such as 20.",
            id='ws4redis.W009',
        )
    ]


def check_session_engine() -> list[CheckMessage]:
    if settings.SESSION_ENGINE != 'django.contrib.sessions.backends.signed_cookies':
        return []
    return [
        Warning(
            "SESSION_ENGINE is 'signed_cookies', where a session has no lasting key: what is "
            'published to a session reaches no websocket.',
            hint='Use another engine, or publish to users.',
            id='ws4redis.W010',
        )
    ]


def check_accepting_views() -> list[CheckMessage]:
    if not conf.WEBSOCKET_ACCEPT_ALL:
        return []
    return [
        Warning(
            'WEBSOCKET_ACCEPT_ALL is True: every view is called with websockets, also those that '
            'do not expect any.',
            hint='Mark the views that accept websockets by the decorator accept_websocket.',
            id='ws4redis.W011',
        )
    ]

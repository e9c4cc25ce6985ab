"""Whether Redis can be reached, is new enough, and permits what ws4redis does."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
from django.core.exceptions import ImproperlyConfigured

from ws4redis.broker.connections import get_client, make_bus_connection
from ws4redis.conf import conf
from ws4redis.doctor.findings import Finding, error, good, note, warning

OLDEST_VERSION = (6, 2)
# A subscriber whose unread messages exceed this is disconnected by Redis.
SMALLEST_PUBSUB_BUFFER_BYTES = 8 * 1024 * 1024
SLOW_MILLISECONDS = 5.0


def examine_redis() -> Iterator[Finding]:
    """Yield findings about Redis; only the first one when it cannot be reached."""
    try:
        client = get_client()
        started = time.perf_counter()
        client.ping()
        connected = time.perf_counter()
        client.ping()
        milliseconds = (time.perf_counter() - connected) * 1000
    except ImproperlyConfigured as exc:
        yield error('Redis', str(exc), 'Correct WS4REDIS_CONNECTION.')
        return
    except redis.AuthenticationError as exc:
        yield error(
            'Redis',
            f'refuses the login: {exc}',
            "Correct 'username' and 'password' in WS4REDIS_CONNECTION.",
        )
        return
    except (redis.RedisError, OSError) as exc:
        yield error(
            'Redis',
            f'cannot be reached: {exc}',
            'Start Redis, or correct host, port, unix_socket_path or ssl in WS4REDIS_CONNECTION; '
            'look for a firewall between this machine and Redis.',
        )
        return
    yield _latency(milliseconds, connect_milliseconds=(connected - started) * 1000)
    yield from _version(client)
    yield _bus_connection()
    yield from _permissions(client)
    yield _pubsub_buffer(client)


def _latency(milliseconds: float, *, connect_milliseconds: float) -> Finding:
    text = f'answers in {milliseconds:.2f} ms'
    details = {'milliseconds': milliseconds, 'connect_milliseconds': connect_milliseconds}
    if milliseconds > SLOW_MILLISECONDS:
        return warning(
            'Redis',
            text,
            'Every message takes this way twice: run Redis nearer to Django and the loop.',
            **details,
        )
    return good('Redis', text, **details)


def _version(client: redis.Redis) -> Iterator[Finding]:
    try:
        info: Any = client.info('server')
    except redis.ResponseError:
        yield note('Redis version', 'is not shown to this user (the command INFO is not permitted)')
        return
    version = str(info['redis_version'])
    if tuple(int(part) for part in version.split('.')[:2]) < OLDEST_VERSION:
        yield error(
            'Redis version',
            f'{version} is too old',
            'Install Redis 6.2 or newer: the websocket loop needs RESP3.',
            version=version,
        )
    else:
        yield good('Redis version', version, version=version)


def _bus_connection() -> Finding:
    """Connect as the websocket loop does."""
    connection: Any = make_bus_connection()
    try:
        connection.connect()
    except (redis.RedisError, OSError) as exc:
        return error(
            'pub/sub connection',
            f'cannot be made: {exc}',
            'The websocket loop needs RESP3 (the command HELLO 3), which some proxies for Redis '
            'do not pass on: connect to Redis itself.',
        )
    finally:
        with contextlib.suppress(redis.RedisError, OSError):
            connection.disconnect()
    is_encrypted = isinstance(connection, redis.SSLConnection)
    return good('pub/sub connection', 'RESP3 works' + (', with TLS' if is_encrypted else ''))


def _permissions(client: redis.Redis) -> Iterator[Finding]:
    """Do on a channel of the doctor's own what the package does on others."""
    prefix = conf.key_prefix
    name = f'{prefix}broadcast:ws4redis-doctor-{secrets.token_hex(4)}'
    refused = []
    pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
    attempts: dict[str, Callable[[], object]] = {
        'SUBSCRIBE': lambda: (pubsub.subscribe(name), pubsub.get_message(timeout=2)),
        'SET': lambda: client.set(name, 'probe', ex=5),
        'GET': lambda: client.get(name),
        'PUBLISH': lambda: client.publish(name, 'probe'),
    }
    with contextlib.closing(pubsub):
        for command, attempt in attempts.items():
            try:
                attempt()
            except redis.ResponseError as exc:
                refused.append(f'{command} ({exc})')
    with contextlib.suppress(redis.RedisError):
        client.delete(name)
    if refused:
        yield error(
            'Redis permissions',
            f'on the channel and key {name!r} Redis refuses ' + ', '.join(refused),
            f"Give the user the right: ACL SETUSER <user> '~{prefix}*' '&{prefix}*' "
            '+subscribe +unsubscribe +publish +get +mget +pttl +set +multi +exec +ping',
        )
    else:
        yield good('Redis permissions', 'SUBSCRIBE, PUBLISH, SET and GET are permitted')


def _pubsub_buffer(client: redis.Redis) -> Finding:
    subject = 'client-output-buffer-limit pubsub'
    try:
        answer: Any = client.config_get('client-output-buffer-limit')
    except redis.ResponseError:
        return note(subject, 'is not shown to this user (the command CONFIG is not permitted)')
    words = str(answer.get('client-output-buffer-limit', '')).split()
    if 'pubsub' not in words:
        return note(subject, 'is not shown')
    hard, soft, seconds = (int(word) for word in words[words.index('pubsub') + 1 :][:3])
    if not _is_enough(hard) or not _is_enough(soft):
        return warning(
            subject,
            f'is {hard} {soft} {seconds}: a websocket loop that lags by so little is disconnected',
            'Set client-output-buffer-limit pubsub 32mb 8mb 60 in redis.conf, as is the default.',
            hard=hard,
            soft=soft,
        )
    return good(subject, f'is {hard} {soft} {seconds}', hard=hard, soft=soft)


def _is_enough(limit: int) -> bool:
    return limit == 0 or limit >= SMALLEST_PUBSUB_BUFFER_BYTES

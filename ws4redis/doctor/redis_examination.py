"""Whether Redis can be reached, is new enough, and permits what ws4redis does."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
from django.core.exceptions import ImproperlyConfigured

from ws4redis.broker.connections import client_of_key, make_bus_connection
from ws4redis.conf import conf
from ws4redis.doctor.findings import Finding, error, good, note, warning
from ws4redis.doctor.topology_examination import examine_topology

OLDEST_VERSION = (6, 2)
OLDEST_CLUSTER_VERSION = (7, 0)
# A subscriber whose unread messages exceed this is disconnected by Redis.
SMALLEST_PUBSUB_BUFFER_BYTES = 8 * 1024 * 1024
SLOW_MILLISECONDS = 5.0
_PROBE = secrets.token_hex(4)


def examine_redis() -> Iterator[Finding]:
    """Yield findings about Redis; only the first one when it cannot be reached."""
    try:
        client = client_of_key(_probe_name())
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
            'Start Redis, or correct what WS4REDIS_CONNECTION says of where it is and of TLS; look '
            'for a firewall between this machine and Redis.',
        )
        return
    yield _latency(milliseconds, connect_milliseconds=(connected - started) * 1000)
    yield from _version(client)
    yield from examine_topology()
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
    oldest, reason = OLDEST_VERSION, 'the websocket loop needs RESP3'
    if conf.uses_cluster:
        oldest, reason = OLDEST_CLUSTER_VERSION, 'a Cluster needs sharded pub/sub'
    if tuple(int(part) for part in version.split('.')[:2]) < oldest:
        yield error(
            'Redis version',
            f'{version} is too old',
            f'Install Redis {oldest[0]}.{oldest[1]} or newer: {reason}.',
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
    prefix, name, sharded = conf.key_prefix, _probe_name(), 's' if conf.uses_cluster else ''
    subscribe, publish = f'{sharded}subscribe', f'{sharded}publish'
    refused = []
    pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
    execute: Any = client.execute_command
    attempts: dict[str, Callable[[], object]] = {
        subscribe.upper(): lambda: (
            pubsub.execute_command(subscribe, name),
            pubsub.parse_response(),
        ),
        'SET': lambda: client.set(name, 'probe', ex=5),
        'GET': lambda: client.get(name),
        publish.upper(): lambda: execute(publish, name, 'probe'),
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
            f'+{subscribe} +{sharded}unsubscribe +{publish} '
            '+get +mget +pttl +set +multi +exec +ping'
            + (' +asking +cluster|slots +cluster|info' if sharded else ''),
        )
    else:
        yield good('Redis permissions', f'{", ".join(attempts)} are permitted')


def _probe_name() -> str:
    # One for all questions of a process, so that in a Cluster they go to the same node.
    return f'{conf.key_prefix}broadcast:ws4redis-doctor-{_PROBE}'


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

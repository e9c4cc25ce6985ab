"""A Redis Cluster, and a Redis under Sentinels, as context managers.

All of their servers are real ones, on free ports of the loopback, and end with the test.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.free_ports import free_port
from tests.programs import RedisServer, redis_executable
from tests.requirements import require
from tests.server_process import ServerProcess, wait_for_port
from tests.timeouts import SERVER_SECONDS, wait_until
from ws4redis.broker.keys import SLOTS

# The paths of a certificate and of its key.
Certificate = tuple[Path, Path]

# Long enough for a busy machine not to fail over by itself, short enough to wait for.
NODE_TIMEOUT_MS = 2000
DOWN_AFTER_MS = 2000


class _Servers:
    """Several servers that start and end together."""

    def __init__(self) -> None:
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self._cleanup.close()

    def _start_all(self, servers: Iterable[ServerProcess]) -> None:
        started = []
        for server in servers:
            self._cleanup.callback(_end, server)
            server.spawn()
            started.append(server)
        for server in started:
            server.wait_until_ready(0)


def _end(server: ServerProcess) -> None:
    # Whatever a test did to it; nothing is to be kept.
    server.kill()


def tls_options(certificate: Certificate | None) -> dict[str, str]:
    """Return the options of a server that speaks TLS with others, and plainly with the test."""
    if certificate is None:
        return {}
    certfile, keyfile = map(str, certificate)
    return {
        'tls-port': str(free_port()),
        'tls-cert-file': certfile,
        'tls-key-file': keyfile,
        'tls-ca-cert-file': certfile,
        'tls-auth-clients': 'no',
        'tls-replication': 'yes',
    }


def tls_settings(certificate: Certificate | None) -> dict[str, Any]:
    """Return what says so in WS4REDIS_CONNECTION."""
    return {} if certificate is None else {'ssl': True, 'ssl_ca_certs': str(certificate[0])}


def is_new_enough() -> bool:
    """Tell whether the Redis at hand has sharded pub/sub, as Redis 7 has."""
    with RedisServer() as server, server.client() as client:
        return int(str(client.info('server')['redis_version']).split('.')[0]) >= 7


class ClusterServer(RedisServer):
    """One server of a Cluster."""

    def __init__(
        self, *, password: str | None = None, certificate: Certificate | None = None
    ) -> None:
        super().__init__(
            password=password,
            options={
                'cluster-enabled': 'yes',
                'cluster-config-file': 'nodes.conf',
                'cluster-port': str(free_port()),
                'cluster-node-timeout': str(NODE_TIMEOUT_MS),
                'repl-diskless-sync-delay': '0',
                'appendonly': 'yes',
                'appendfsync': 'everysec',
                'enable-debug-command': 'local',
                **({'masterauth': password} if password else {}),
                **({'tls-cluster': 'yes'} if certificate else {}),
                **tls_options(certificate),
            },
        )
        self.id = ''

    @property
    def bus_port(self) -> int:
        return int(self._options['cluster-port'])

    @property
    def node(self) -> tuple[str, int]:
        return self.host, self.announced_port


class ClusterOfRedis(_Servers):
    """A Cluster of some masters, each with as many replicas."""

    def __init__(
        self,
        masters: int = 3,
        replicas: int = 1,
        *,
        password: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__()
        self._masters = masters
        self._replicas = replicas
        self._certificate = certificate
        self.nodes = [
            ClusterServer(password=password, certificate=certificate)
            for _ in range(masters * (1 + replicas))
        ]

    @property
    def connection(self) -> dict[str, Any]:
        """The value of WS4REDIS_CONNECTION for this Cluster."""
        settings: dict[str, Any] = {
            'cluster': [f'redis://{node.host}:{node.announced_port}' for node in self.nodes],
            **tls_settings(self._certificate),
        }
        if self.nodes[0].password:
            settings['password'] = self.nodes[0].password
        return settings

    def start(self) -> None:
        self._start_all(self.nodes)
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                node.id = str(_text(client.execute_command('CLUSTER', 'MYID')))
                # Else two nodes may have the same, and quarrel about it.
                client.execute_command('CLUSTER', 'SET-CONFIG-EPOCH', number + 1)
                if number < self._masters:
                    start = SLOTS * number // self._masters
                    end = SLOTS * (number + 1) // self._masters - 1
                    client.execute_command('CLUSTER', 'ADDSLOTSRANGE', start, end)
        for node in self.nodes[1:]:
            with node.client() as client:
                client.execute_command('CLUSTER', 'MEET', *first.node, first.bus_port)
        wait_until(self._all_know_all, timeout=SERVER_SECONDS, message='the nodes do not meet')
        for number, node in enumerate(self.nodes[self._masters :]):
            with node.client() as client:
                master = self.nodes[number % self._masters]
                client.execute_command('CLUSTER', 'REPLICATE', master.id)
        self.wait_until_whole()

    def add_master(self) -> ClusterServer:
        """Let one more node join, which has no slots yet."""
        first = self.nodes[0]
        node = ClusterServer(password=first.password, certificate=self._certificate)
        self._start_all([node])
        with node.client() as client:
            node.id = str(_text(client.execute_command('CLUSTER', 'MYID')))
            client.execute_command('CLUSTER', 'MEET', *first.node, first.bus_port)
        self.nodes.append(node)
        wait_until(self._all_know_all, timeout=SERVER_SECONDS, message='the nodes do not meet')
        self.wait_until_whole()
        return node

    def _all_know_all(self) -> bool:
        return all(len(self._lines(node)) == len(self.nodes) for node in self.nodes)

    def _lines(self, node: ClusterServer) -> list[list[str]]:
        with node.client() as client:
            text = _text(_raw(client, 'CLUSTER', 'NODES'))
        return [line.split() for line in text.splitlines()]

    def wait_until_whole(self, seconds: float = SERVER_SECONDS) -> None:
        """Wait until every slot is served and every replica is in step with its master."""
        wait_until(self._is_whole, timeout=seconds, message='the Cluster does not become whole')

    def _is_whole(self) -> bool:
        views = set()
        for node in self.nodes:
            if not node.is_running:
                continue
            try:
                with node.client() as client:
                    state = _text(_raw(client, 'CLUSTER', 'INFO'))
                    role = _raw(client, 'ROLE')
                views.add(frozenset((line[0], line[3], *line[8:]) for line in self._lines(node)))
            except redis.RedisError:
                return False
            if 'cluster_state:ok' not in state:
                return False
            if _text(role[0]) == 'slave' and _text(role[3]) != 'connected':
                return False
        # Who follows whom, and who has which slots, is told by gossip.
        return len(views) == 1

    # What is where

    def masters(self) -> list[ClusterServer]:
        """Return the nodes that serve slots now, those that run."""
        return [node for node in self.nodes if node.is_running and self.is_master(node)]

    def is_master(self, node: ClusterServer) -> bool:
        try:
            with node.client() as client:
                return _text(_raw(client, 'ROLE')[0]) == 'master'
        except redis.RedisError:
            return False

    def owner_of(self, slot: int) -> ClusterServer:
        """Return the master of a slot, as most of the nodes that run see it."""
        votes: dict[str, int] = {}
        for node in self.nodes:
            if not node.is_running:
                continue
            with suppress(redis.RedisError), node.client() as client:
                for start, end, master, *_ in _raw(client, 'CLUSTER', 'SLOTS'):
                    if start <= slot <= end:
                        name = _text(master[2])
                        votes[name] = votes.get(name, 0) + 1
        wanted = max(votes, key=votes.__getitem__)
        return next(node for node in self.nodes if node.id == wanted)

    def replicas_of(self, master: ClusterServer) -> list[ClusterServer]:
        """Return the replicas of a master that run."""
        ids = {line[0] for line in self._lines(master) if line[3] == master.id}
        return [node for node in self.nodes if node.id in ids and node.is_running]

    # What happens to it

    def fail_over(self, replica: ClusterServer, *, force: str | None = None) -> None:
        """Promote a replica, by default in agreement with its master."""
        with replica.client() as client:
            client.execute_command('CLUSTER', 'FAILOVER', *([force] if force else []))
        wait_until(lambda: self.is_master(replica), timeout=SERVER_SECONDS, message='no promotion')

    def migrate(self, slot: int, target: ClusterServer, *, pause_seconds: float = 0.0) -> None:
        """Move a slot to another master, key by key, as redis-cli does it.

        It stays half moved for ``pause_seconds``.
        """
        source = self.owner_of(slot)
        if source is target:
            return
        with source.client() as at_source, target.client() as at_target:
            at_target.execute_command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', source.id)
            at_source.execute_command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', target.id)
            time.sleep(pause_seconds / 2)
            login = ('AUTH', target.password) if target.password else ()
            while keys := at_source.execute_command('CLUSTER', 'GETKEYSINSLOT', slot, 10):
                at_source.execute_command(
                    *('MIGRATE', *target.node, '', 0, 5000, 'REPLACE', *login, 'KEYS', *keys)
                )
                time.sleep(pause_seconds / 10)
            time.sleep(pause_seconds / 2)
            # The target first, as the specification has it, so that no slot is nobody's.
            at_target.execute_command('CLUSTER', 'SETSLOT', slot, 'NODE', target.id)
            # It may have heard of it: whose last slot that was follows the new owner.
            with suppress(redis.ResponseError):
                at_source.execute_command('CLUSTER', 'SETSLOT', slot, 'NODE', target.id)
        for node in self.masters():
            if node not in (source, target):
                with suppress(redis.RedisError), node.client() as client:
                    client.execute_command('CLUSTER', 'SETSLOT', slot, 'NODE', target.id)


class Sentinel(RedisServer):
    """One Sentinel."""

    name = 'redis-sentinel'

    def __init__(
        self,
        master: RedisServer,
        *,
        quorum: int,
        password: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(password=password, options=tls_options(certificate))
        self._watched = master
        self._quorum = quorum

    def command(self) -> Sequence[str]:
        master = self._watched
        path = self._directory / 'sentinel.conf'
        if not path.exists():
            lines = [
                f'port {self.port}',
                f'bind {self.host}',
                f'dir {self._directory}',
                'daemonize no',
                *(f'{name} {value}' for name, value in self._options.items()),
                f'sentinel monitor main {master.host} {master.announced_port} {self._quorum}',
                f'sentinel down-after-milliseconds main {DOWN_AFTER_MS}',
                'sentinel failover-timeout main 6000',
                'sentinel parallel-syncs main 2',
            ]
            if master.password:
                lines.append(f'sentinel auth-pass main {master.password}')
            if self.password:
                lines += [f'requirepass {self.password}', f'sentinel sentinel-pass {self.password}']
            path.write_text('\n'.join(lines) + '\n', encoding='ascii')
        return [redis_executable(), str(path), '--sentinel']

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log(r'\+monitor', since=since)
        wait_for_port((self.host, self.port))


class RedisWithSentinels(_Servers):
    """A master with replicas, and Sentinels that watch them under the name ``main``."""

    def __init__(
        self,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        password: str | None = None,
        sentinel_password: str | None = None,
        certificate: Certificate | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._certificate = certificate
        options = {
            'repl-diskless-sync-delay': '0',
            'replica-read-only': 'yes',
            **(options or {}),
        }
        if password:
            options['masterauth'] = password
        self.servers = [
            RedisServer(password=password, options={**options, **tls_options(certificate)})
        ]
        first = self.servers[0]
        for _ in range(replicas):
            self.servers.append(
                RedisServer(
                    password=password,
                    options={
                        **options,
                        **tls_options(certificate),
                        'replicaof': f'{first.host} {first.announced_port}',
                    },
                )
            )
        self.sentinels = [
            Sentinel(
                first,
                quorum=sentinels // 2 + 1,
                password=sentinel_password,
                certificate=certificate,
            )
            for _ in range(sentinels)
        ]

    @property
    def connection(self) -> dict[str, Any]:
        """The value of WS4REDIS_CONNECTION for this service."""
        settings: dict[str, Any] = {
            'sentinels': [[sentinel.host, sentinel.announced_port] for sentinel in self.sentinels],
            'service_name': 'main',
            **tls_settings(self._certificate),
        }
        if self.servers[0].password:
            settings['password'] = self.servers[0].password
        asking = tls_settings(self._certificate)
        if self.sentinels[0].password:
            asking['password'] = self.sentinels[0].password
        return {**settings, 'sentinel_kwargs': asking} if asking else settings

    def start(self) -> None:
        self._start_all(self.servers)
        self._start_all(self.sentinels)
        self.wait_until_whole()

    def master(self) -> RedisServer:
        """Return the master, as the first Sentinel that runs names it."""
        sentinel = next(sentinel for sentinel in self.sentinels if sentinel.is_running)
        with sentinel.client() as client:
            answer = client.execute_command('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'main')
        port = int(answer[1])
        return next(server for server in self.servers if server.announced_port == port)

    def wait_until_whole(self, seconds: float = SERVER_SECONDS) -> None:
        """Wait until all Sentinels know each other and replicas, and these are in step."""
        wait_until(self._is_whole, timeout=seconds, message='the Sentinels do not agree')

    def _is_whole(self) -> bool:
        running = [server for server in self.servers if server.is_running]
        others = sum(sentinel.is_running for sentinel in self.sentinels) - 1
        try:
            for sentinel in self.sentinels:
                if not sentinel.is_running:
                    continue
                with sentinel.client() as client:
                    flat = _raw(client, 'SENTINEL', 'MASTER', 'main')
                    replicas = _raw(client, 'SENTINEL', 'REPLICAS', 'main')
                state = _pairs(flat)
                up = sum(_pairs(replica)['flags'] == 'slave' for replica in replicas)
                if state['flags'] != 'master' or int(state['num-other-sentinels']) < others:
                    return False
                if up < len(running) - 1:
                    return False
            master = self.master()
            for server in running:
                with server.client() as client:
                    role = _raw(client, 'ROLE')
                if server is master:
                    if _text(role[0]) != 'master':
                        return False
                elif _text(role[0]) != 'slave' or _text(role[3]) != 'connected':
                    return False
        except (redis.RedisError, StopIteration):
            return False
        return True

    def fail_over(self) -> RedisServer:
        """Let the Sentinels promote a replica, and return the new master."""
        before = self.master()
        sentinel = next(sentinel for sentinel in self.sentinels if sentinel.is_running)
        with sentinel.client() as client:
            client.execute_command('SENTINEL', 'FAILOVER', 'main')
        wait_until(
            lambda: self.master() is not before, timeout=SERVER_SECONDS, message='no promotion'
        )
        return self.master()


def _raw(client: redis.Redis, *words: str) -> Any:
    """Return the reply to a command as Redis sent it: redis-py would parse some."""
    # Bytes are the name of no command that redis-py knows.
    return client.execute_command(words[0].encode(), *words[1:])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pairs(reply: Any) -> dict[str, str]:
    if isinstance(reply, dict):
        # As RESP3 has it, which newer versions of redis-py speak.
        return {_text(name): _text(value) for name, value in reply.items()}
    words = [_text(word) for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


def require_cluster() -> None:
    """Skip, or fail under CI, where the Redis at hand is too old for a Cluster."""
    require(is_new_enough(), 'a Cluster needs Redis 7')

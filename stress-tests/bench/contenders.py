"""The contenders: how each is started, which URL it wants, and how one publishes to it."""

import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from . import environments
from .processes import ServerProcess, free_port
from .publishers import (
    ChannelsPublisher,
    Publisher,
    RedisPublisher,
    broadcast_command,
)
from .redis_server import RedisServer
from .swarm import Swarm

STRESS_TESTS = Path(__file__).resolve().parent.parent
REPOSITORY = STRESS_TESTS.parent
SERVERS = Path(__file__).resolve().parent / 'servers'

LISTEN_BACKLOG = 1024
MAX_DESCRIPTORS = 20_000


class Code(Enum):
    """How the code that a websocket's messages are handed to is written."""

    BLOCKING = 'blocking'
    COOPERATIVE = 'cooperative'


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server is started with.

    Attributes:
        redis: the Redis that it reads.
        directory: for logs and the users' database.
        workers: number of server processes.
        compression: accept permessage-deflate.
        handlers: hand messages from websockets to code written in this way.
    """

    redis: RedisServer
    directory: Path
    workers: int = 1
    compression: bool = False
    handlers: Code | None = None

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables that the server files read."""
        return {
            'BENCH_REDIS_PORT': str(self.redis.port),
            'BENCH_DIRECTORY': str(self.directory),
            'PYTHONPATH': f'{STRESS_TESTS}:{REPOSITORY}',
            **more,
        }


@dataclass(frozen=True, slots=True)
class Features:
    """Which scenarios make sense for a contender."""

    upstream: bool = True
    sessions: bool = False
    compression: bool = True
    several_workers: bool = False
    blocking_handlers: bool = False
    cooperative_handlers: bool = False


class Contender:
    """One way to get messages from Redis to browsers.

    Attributes:
        name: as given on the command line.
        title: as shown in tables.
        features: what it takes part in.
        deliveries_in_time: how many deliveries of a burst it can be asked for so that they take ten
            seconds or so. A longer burst is shortened for it: a rate is only fair to a server that
            was given the time to finish.
    """

    name: str
    title: str
    features = Features()
    deliveries_in_time = 1_000_000

    def start(self, setup: Setup) -> ServerProcess:
        """Start the server; it need not be ready yet.

        Raises:
            environments.NotInstalled: it cannot run here, and why.
        """
        raise NotImplementedError

    def path(self, facility: str, *options: str) -> str:
        """Return path and query of a websocket's URL."""
        return f'/ws/{facility}?{"&".join(options)}'

    def user_path(self) -> str:
        """Return path and query of a websocket that gets the messages of its session's user."""
        return self.path('bench', 'subscribe-user')

    def handler_path(self, code: Code) -> str:
        """Return path of the URL of a websocket whose messages are sent back by a handler."""
        return f'/handler/{code.value}'

    def publisher(self, swarm: Swarm, setup: Setup) -> Publisher:
        """Connect what publishes to it."""
        return RedisPublisher(swarm, setup.redis.address, command=broadcast_command)


class Ws4redis(Contender):
    """The websocket loop of this package under uWSGI with gevent.

    Handlers run under `run_wsserver`: there one can choose between threads and greenlets.
    """

    name = 'ws4redis'
    title = 'ws4redis'
    features = Features(
        sessions=True, several_workers=True, blocking_handlers=True, cooperative_handlers=True
    )
    deliveries_in_time = 1_000_000_000

    def start(self, setup: Setup) -> ServerProcess:
        """Start uWSGI, or the standalone server for handlers."""
        port = free_port()
        command = _uwsgi(port, setup) if setup.handlers is None else _run_wsserver(port, setup)
        return ServerProcess(
            command,
            port=port,
            log=setup.directory / 'ws4redis.log',
            environment=setup.environment(
                DJANGO_SETTINGS_MODULE='bench.servers.ws4redis_settings',
            ),
        )


def _uwsgi(port: int, setup: Setup) -> list[str | Path]:
    return [
        environments.uwsgi(),
        '--http-socket', f'127.0.0.1:{port}',
        '--gevent', '100',
        '--master',
        '--processes', str(setup.workers),
        '--listen', str(LISTEN_BACKLOG),
        '--max-fd', str(MAX_DESCRIPTORS),
        '--buffer-size', '16384',
        '--module', 'bench.servers.ws4redis_wsgi',
        '--need-app', '--die-on-term', '--disable-logging',
        '--virtualenv', sys.prefix,
    ]  # fmt: skip


def _run_wsserver(port: int, setup: Setup) -> list[str | Path]:
    return [
        sys.executable, '-m', 'django', 'run_wsserver', f'127.0.0.1:{port}',
        '--threaded' if setup.handlers is Code.BLOCKING else '--gevent',
        '--websocket-url', r'^/handler/(?P<namespace>\w+)$',
    ]  # fmt: skip


class Floor(Contender):
    """A bare loop that only calls `send` once per websocket and message."""

    name = 'floor'
    title = 'the floor'
    features = Features(upstream=False, compression=False)

    def start(self, setup: Setup) -> ServerProcess:
        """Start the loop."""
        port = free_port()
        return ServerProcess(
            [sys.executable, SERVERS / 'floor_server.py', str(port), str(setup.redis.port)],
            port=port,
            log=setup.directory / 'floor.log',
        )


class Channels(Contender):
    """Django Channels with one of the layers of channels_redis, under uvicorn.

    Args:
        layer: `core` or `pubsub`.
    """

    deliveries_in_time = 60_000

    def __init__(self, layer: str) -> None:
        self.name = 'channels-uvicorn' + ('' if layer == 'core' else f'-{layer}')
        self.title = f'Channels ({layer}), uvicorn'
        self.features = Features(
            sessions=True,
            several_workers=True,
            # Which layer there is makes no difference to a consumer that uses none.
            blocking_handlers=layer == 'core',
            cooperative_handlers=layer == 'core',
        )
        self._layer = layer

    def start(self, setup: Setup) -> ServerProcess:
        """Start uvicorn."""
        port = free_port()
        return ServerProcess(
            [environments.channels_python(), *_uvicorn(port, setup)],
            port=port,
            log=setup.directory / f'{self.name}.log',
            environment=self._environment(setup),
        )

    def user_path(self) -> str:
        """Return path and query of a websocket that gets the messages of its session's user."""
        return '/auth/bench?subscribe-user'

    def publisher(self, swarm: Swarm, setup: Setup) -> Publisher:
        """Start the process that publishes through the layer."""
        return ChannelsPublisher(
            swarm,
            environments.channels_python(),
            environment=self._environment(setup),
            directory=setup.directory,
        )

    def _environment(self, setup: Setup) -> dict[str, str]:
        return setup.environment(
            BENCH_CHANNEL_LAYER=self._layer,
            DJANGO_SETTINGS_MODULE='bench.servers.channels_settings',
        )


def _uvicorn(port: int, setup: Setup) -> list[str]:
    command = [
        '-m', 'uvicorn', 'bench.servers.channels_app:application',
        '--host', '127.0.0.1', '--port', str(port), '--backlog', str(LISTEN_BACKLOG),
        '--log-level', 'warning', '--no-access-log', '--lifespan', 'off',
        '--ws-per-message-deflate', 'true' if setup.compression else 'false',
    ]  # fmt: skip
    return command if setup.workers == 1 else [*command, '--workers', str(setup.workers)]


class NodeContender(Contender):
    """A server in Node.

    Args:
        name: as given on the command line.
        title: as shown in tables.
        script: its file.
    """

    features = Features(several_workers=True, cooperative_handlers=True)

    def __init__(self, name: str, title: str, script: str) -> None:
        self.name = name
        self.title = title
        self._script = SERVERS / script

    def start(self, setup: Setup) -> ServerProcess:
        """Start Node."""
        port = free_port()
        node, modules = environments.node()
        return ServerProcess(
            [node, self._script],
            port=port,
            log=setup.directory / f'{self.name}.log',
            environment={
                'NODE_PATH': str(modules),
                'NODE_ENV': 'production',
                'PORT': str(port),
                'REDIS_PORT': str(setup.redis.port),
                'WORKERS': str(setup.workers),
                'COMPRESSION': '1' if setup.compression else '',
            },
        )


def _make_all() -> dict[str, Contender]:
    contenders: list[Contender] = [
        Ws4redis(),
        Floor(),
        NodeContender('node-ws', 'Node ws', 'node_ws.js'),
        Channels('core'),
        Channels('pubsub'),
    ]
    return {contender.name: contender for contender in contenders}


CONTENDERS = _make_all()

"""The contenders: how each is started, which URL it wants, and how one publishes to it."""

import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from . import environments, frames
from .processes import ServerProcess, free_port
from .publishers import (
    ChannelsPublisher,
    HistoryPublisher,
    NchanPublisher,
    Publisher,
    RedisPublisher,
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
        compression: accept permessage-deflate.
        handlers: hand messages from websockets to code written in this way.
        histories: keep what was published for those who come back.
        seen: whether processes tell what they do, and somebody has the live page open.
    """

    redis: RedisServer
    directory: Path
    compression: bool = False
    handlers: Code | None = None
    histories: bool = False
    seen: bool | None = None

    def environment(self, repository: Path = REPOSITORY, **more: str) -> dict[str, str]:
        """Return the variables that the server files read."""
        return {
            'BENCH_REDIS_PORT': str(self.redis.port),
            'BENCH_DIRECTORY': str(self.directory),
            'BENCH_HISTORIES': '1' if self.histories else '',
            'BENCH_UNSEEN': '1' if self.seen is False else '',
            'PYTHONPATH': f'{repository}/stress-tests:{repository}',
            **more,
        }


@dataclass(frozen=True, slots=True)
class Features:
    """Which scenarios make sense for a contender."""

    fan_out: bool = True
    upstream: bool = True
    sessions: bool = False
    compression: bool = True
    handlers: tuple[Code, ...] = ()
    histories: bool = False
    crowd: bool = True
    scripts: bool = False


class Contender:
    """One way to get messages from Redis to browsers.

    Attributes:
        name: as given on the command line.
        title: as shown in tables.
        features: what it takes part in.
        deliveries_in_time: how many deliveries of a burst it can be asked for so that they take ten
            seconds or so. A longer burst is shortened for it: a rate is only fair to a server that
            was given the time to finish.
        rounds: how often it is measured at most.
    """

    name: str
    title: str
    features = Features()
    deliveries_in_time = 1_000_000
    rounds = 3

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

    def publisher(self, swarm: Swarm, setup: Setup, server: ServerProcess) -> Publisher:
        """Connect what publishes to it."""
        return RedisPublisher(swarm, setup.redis.address)


class Ws4redis(Contender):
    """The websocket loop of this package under uWSGI with gevent.

    Handlers run under `run_wsserver`: there one can choose between threads and greenlets.

    Args:
        repository: another checkout than this one, with its virtual environment in `.venv`.
    """

    deliveries_in_time = 1_000_000_000

    def __init__(self, repository: Path | None = None) -> None:
        self.name = 'ws4redis' if repository is None else 'ws4redis-other'
        self.title = 'ws4redis' if repository is None else f'ws4redis in {repository.name}'
        is_ours = repository is None
        self.features = Features(
            sessions=True, handlers=tuple(Code), histories=is_ours, scripts=is_ours
        )
        self._repository = repository or REPOSITORY
        self._environment = Path(sys.prefix) if repository is None else repository / '.venv'

    def start(self, setup: Setup) -> ServerProcess:
        """Start uWSGI, or the standalone server for handlers."""
        port = free_port()
        make_command = _uwsgi if setup.handlers is None else _run_wsserver
        return ServerProcess(
            make_command(self._environment, port, setup),
            port=port,
            log=setup.directory / 'ws4redis.log',
            environment=setup.environment(
                self._repository, DJANGO_SETTINGS_MODULE='bench.servers.ws4redis_settings'
            ),
        )

    def publisher(self, swarm: Swarm, setup: Setup, server: ServerProcess) -> Publisher:
        """Connect what publishes to it."""
        if setup.histories:
            return HistoryPublisher(swarm, setup.redis)
        return super().publisher(swarm, setup, server)


def _uwsgi(environment: Path, port: int, setup: Setup) -> list[str | Path]:
    return [
        environments.uwsgi(environment),
        '--http-socket', f'127.0.0.1:{port}',
        '--gevent', '100',
        '--master',
        '--listen', str(LISTEN_BACKLOG),
        '--max-fd', str(MAX_DESCRIPTORS),
        '--buffer-size', '16384',
        '--module', 'bench.servers.ws4redis_wsgi',
        '--need-app', '--die-on-term', '--disable-logging',
        '--virtualenv', environment,
    ]  # fmt: skip


def _run_wsserver(environment: Path, port: int, setup: Setup) -> list[str | Path]:
    return [
        environment / 'bin' / 'python', '-m', 'django', 'run_wsserver', f'127.0.0.1:{port}',
        '--gevent' if setup.handlers is Code.COOPERATIVE else '--threaded',
        '--websocket-url', r'^/handler/(?P<namespace>\w+)$',
    ]  # fmt: skip


class Ws4redisNative(Ws4redis):
    """The same loop with its own door: `run_wsserver`."""

    def __init__(self) -> None:
        super().__init__()
        self.name = 'ws4redis-native'
        self.title = 'ws4redis, native door'
        # Handlers run under `run_wsserver` anyway.
        self.features = Features(sessions=True, histories=True)

    def start(self, setup: Setup) -> ServerProcess:
        """Start `run_wsserver`."""
        port = free_port()
        return ServerProcess(
            _run_wsserver(self._environment, port, setup),
            port=port,
            log=setup.directory / 'ws4redis-native.log',
            environment=setup.environment(
                self._repository, DJANGO_SETTINGS_MODULE='bench.servers.ws4redis_settings'
            ),
        )


class Floor(Contender):
    """A bare loop that only calls `send` once per websocket and message.

    Args:
        name: as given on the command line.
        in_c: it is in C, unless there is no compiler; the title says so.
        features: what it takes part in.
    """

    def __init__(self, name: str, features: Features, *, in_c: bool) -> None:
        self.name = name
        self.features = features
        self._is_in_c = in_c and environments.c_compiler() is not None
        self.title = 'the floor in C' if self._is_in_c else 'a bare loop in Python'

    def start(self, setup: Setup) -> ServerProcess:
        """Start the loop."""
        port = free_port()
        program: list[str | Path] = (
            [environments.compiled(SERVERS / 'floor.c')]
            if self._is_in_c
            else [sys.executable, SERVERS / 'floor_server.py']
        )
        return ServerProcess(
            [*program, str(port), str(setup.redis.port), frames.ACCEPT.decode()],
            port=port,
            log=setup.directory / f'{self.name}.log',
        )


class Channels(Contender):
    """Django Channels with the faster one of the layers of channels_redis, under uvicorn."""

    name = 'channels'
    title = 'Channels (pubsub), uvicorn'
    features = Features(sessions=True, handlers=tuple(Code), crowd=False)
    deliveries_in_time = 60_000
    # Most of its measurements take as long as they may.
    rounds = 1

    def start(self, setup: Setup) -> ServerProcess:
        """Start uvicorn."""
        port = free_port()
        return ServerProcess(
            [
                environments.channels_python(),
                '-m', 'uvicorn', 'bench.servers.channels_app:application',
                '--host', '127.0.0.1', '--port', str(port), '--backlog', str(LISTEN_BACKLOG),
                '--log-level', 'warning', '--no-access-log', '--lifespan', 'off',
                '--ws-per-message-deflate', 'true' if setup.compression else 'false',
            ],
            port=port,
            log=setup.directory / f'{self.name}.log',
            environment=self._environment(setup),
        )  # fmt: skip

    def user_path(self) -> str:
        """Return path and query of a websocket that gets the messages of its session's user."""
        return '/auth/bench?subscribe-user'

    def publisher(self, swarm: Swarm, setup: Setup, server: ServerProcess) -> Publisher:
        """Start the process that publishes through the layer."""
        return ChannelsPublisher(
            swarm,
            environments.channels_python(),
            environment=self._environment(setup),
            directory=setup.directory,
        )

    def _environment(self, setup: Setup) -> dict[str, str]:
        return setup.environment(DJANGO_SETTINGS_MODULE='bench.servers.channels_settings')


class JavaScript(Contender):
    """A server in JavaScript.

    Args:
        name: as given on the command line.
        title: as shown in tables.
        script: its file.
        runtime: the program that runs it, one of `environments.JAVASCRIPT`.
    """

    features = Features(handlers=(Code.COOPERATIVE,))

    def __init__(self, name: str, title: str, script: str, runtime: str) -> None:
        self.name = name
        self.title = title
        self._script = SERVERS / script
        self._runtime = runtime

    def start(self, setup: Setup) -> ServerProcess:
        """Start Node or Bun."""
        port = free_port()
        program, modules = environments.javascript(self._runtime)
        return ServerProcess(
            [program, self._script],
            port=port,
            log=setup.directory / f'{self.name}.log',
            environment={
                'NODE_PATH': str(modules),
                'NODE_ENV': 'production',
                'PORT': str(port),
                'REDIS_PORT': str(setup.redis.port),
                'COMPRESSION': '1' if setup.compression else '',
            },
        )


class Nchan(Contender):
    """NGINX with the module Nchan, which is published to by HTTP, without a Redis.

    It takes no part in `upstream`: it answers each message that a websocket publishes by another.
    """

    name = 'nchan'
    title = 'Nchan'
    features = Features(upstream=False, histories=True, crowd=False)

    def start(self, setup: Setup) -> ServerProcess:
        """Start NGINX."""
        program, port = environments.nginx_with_nchan(), free_port()
        configuration = setup.directory / 'nchan.conf'
        configuration.write_text(
            (SERVERS / 'nchan.conf').read_text().format(
                port=port,
                directory=setup.directory,
                deflate='on' if setup.compression else 'off',
            )
        )  # fmt: skip
        return ServerProcess(
            [program, '-e', 'stderr', '-c', configuration],
            port=port,
            log=setup.directory / 'nchan.log',
        )

    def path(self, facility: str, *options: str) -> str:
        """Return path and query of a websocket's URL."""
        return f'/{"ws" if "subscribe-broadcast" in options else "pub"}/{facility}'

    def publisher(self, swarm: Swarm, setup: Setup, server: ServerProcess) -> Publisher:
        """Connect what sends HTTP requests."""
        assert server.port is not None
        return NchanPublisher(swarm, ('127.0.0.1', server.port))


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Ws4redis(),
        Ws4redisNative(),
        Floor('floor', Features(upstream=False, compression=False), in_c=True),
        Floor('loop', Features(False, upstream=False, compression=False, crowd=False), in_c=False),
        JavaScript('bun', 'Bun (uWebSockets)', 'bun.js', 'bun'),
        Nchan(),
        JavaScript('node-ws', 'Node ws', 'node_ws.js', 'node'),
        Channels(),
    )
}

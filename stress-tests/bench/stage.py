"""A stage for one measurement: a fresh server of one contender, a swarm, and a publisher."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from . import frames
from .contenders import Contender, Setup
from .processes import ServerProcess
from .publishers import Publisher, timed_message
from .redis_server import RedisServer
from .swarm import HandshakeRefused, Opening, Swarm

SUBSCRIBE_SECONDS = 30.0
# A message that was published before a server had subscribed is published again after this time.
SUBSCRIBE_RETRY_SECONDS = 2.0


class Wrong(Exception):
    """What arrived is not what was published: the measurement is void."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take.

    Attributes:
        open_seconds: for all handshakes of a measurement.
        run_seconds: for the measured part; what has not arrived by then is not waited for.
        straggle_seconds: how much later than the last was published at a rate it may arrive.
    """

    open_seconds: float = 60.0
    run_seconds: float = 20.0
    straggle_seconds: float = 3.0


@dataclass(slots=True)
class Usage:
    """What was spent during a measured part.

    Attributes:
        seconds: of the clock.
        server_seconds: CPU time of the server's processes.
        client_seconds: CPU time of this process.
    """

    seconds: float = 0.0
    server_seconds: float = 0.0
    client_seconds: float = 0.0


@dataclass(slots=True)
class Stage:
    """Run one contender's server, with websockets and a publisher.

    To be used as a context manager; it ends all that it started.
    """

    contender: Contender
    setup: Setup
    limits: Limits = field(default_factory=Limits)
    server: ServerProcess = field(init=False)
    swarm: Swarm = field(init=False)
    publisher: Publisher = field(init=False)
    _exits: contextlib.ExitStack = field(init=False, default_factory=contextlib.ExitStack)
    _sequence: int = field(init=False, default=0)

    def __enter__(self) -> Self:
        self.setup.redis.forget()
        self._start()
        return self

    def _start(self) -> None:
        with contextlib.ExitStack() as exits:
            self.server = self.contender.start(self.setup)
            exits.callback(self.server.stop)
            self.server.wait_until_ready()
            assert self.server.port is not None
            self.swarm = Swarm(('127.0.0.1', self.server.port))
            exits.callback(self.swarm.close)
            self.publisher = self.contender.publisher(self.swarm, self.setup, self.server)
            exits.callback(self.publisher.close)
            self._exits = exits.pop_all()

    def __exit__(self, *exc_info: object) -> None:
        self._exits.close()

    def kill_and_start_again(self) -> None:
        """Kill the server, and start it again, without any websockets."""
        self.server.kill()
        self._exits.close()
        self._start()

    # -- websockets -------------------------------------------------------------------------------

    def open(self, paths: Sequence[str], *, cookies: Sequence[str] = ()) -> Opening:
        """Open websockets, one per path.

        Args:
            paths: paths and queries of their URLs.
            cookies: values of the header `Cookie`, used in turn.

        Raises:
            Wrong: not all were open in time, or compression was wanted and not negotiated.
        """
        opening = self.try_to_open(paths, cookies=cookies)
        if opening.opened < opening.wanted:
            self.server.check()
            raise Wrong(f'only {opening.opened} of {opening.wanted} websockets opened in time')
        extensions = self.swarm.websockets[0].extensions
        if self.setup.compression and b'permessage-deflate' not in extensions:
            raise Wrong('permessage-deflate was not negotiated')
        return opening

    def try_to_open(
        self,
        paths: Sequence[str],
        *,
        cookies: Sequence[str] = (),
        limit_seconds: float | None = None,
    ) -> Opening:
        """Open as many of the websockets as the limit of time allows."""
        requests = [
            frames.upgrade_request(
                path,
                host=f'127.0.0.1:{self.server.port}',
                compression=self.setup.compression,
                headers={'Cookie': cookies[index % len(cookies)]} if cookies else None,
            )
            for index, path in enumerate(paths)
        ]
        limit_seconds = limit_seconds or self.limits.open_seconds
        try:
            return self.swarm.open(requests, limit_seconds=limit_seconds)
        except HandshakeRefused as exc:
            raise HandshakeRefused(f'{exc}\n{self.server.log_tail()}') from exc

    def subscribe(self, count: int, facility: str = 'bench') -> None:
        """Open websockets to one facility and wait until messages reach all of them."""
        self.open([self.contender.path(facility, 'subscribe-broadcast')] * count)
        self.await_subscribed([facility])

    def await_subscribed(
        self,
        facilities: Sequence[str],
        *,
        without: int = 0,
        retry_seconds: float = SUBSCRIBE_RETRY_SECONDS,
    ) -> float:
        """Publish until every websocket has received something; return when (`time.monotonic`).

        Args:
            facilities: they are published to.
            without: number of open websockets that have not subscribed to anything.
            retry_seconds: after this time it is published again.

        Raises:
            Wrong: some websocket still had received nothing after `SUBSCRIBE_SECONDS`.
        """
        end = time.monotonic() + SUBSCRIBE_SECONDS
        self.swarm.reset()
        while self.swarm.waiting() > without:
            if time.monotonic() > end:
                raise Wrong(f'{self.swarm.waiting() - without} websockets are not subscribed')
            self.publisher.publish((facility, self.message()) for facility in facilities)
            before = -1
            while self.swarm.tally.messages > before and self.swarm.waiting() > without:
                before = self.swarm.tally.messages
                self.swarm.run(
                    lambda: self.swarm.waiting() <= without,
                    limit_seconds=retry_seconds,
                )
        reached = time.monotonic()
        self.swarm.run_until_quiet(quiet_seconds=0.2, limit_seconds=SUBSCRIBE_SECONDS)
        self.swarm.reset()
        return reached

    def message(self, size: int = 100) -> bytes:
        """Return a message that was not published before."""
        self._sequence += 1
        return timed_message(self._sequence, size=size)

    # -- measuring --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def measure(self) -> Iterator[Usage]:
        """Measure what is spent in the context."""
        usage = Usage()
        server, client = self.server.cpu_seconds(), time.process_time()
        started = time.monotonic()
        try:
            yield usage
        finally:
            usage.seconds = time.monotonic() - started
            usage.client_seconds = time.process_time() - client
            usage.server_seconds = self.server.cpu_seconds() - server
        self.server.check()
        if self.swarm.lost:
            log = self.server.log_tail()
            raise Wrong(f'the server closed {self.swarm.lost} websockets\n{log}')

    def receive(
        self,
        count: int,
        *,
        next_due: Callable[[], float] | None = None,
        limit_seconds: float | None = None,
    ) -> bool:
        """Receive until `count` messages have arrived; return whether they did in time."""
        tally = self.swarm.tally
        return self.swarm.run(
            lambda: tally.messages >= count,
            limit_seconds=limit_seconds or self.limits.run_seconds,
            next_due=next_due,
        )

    def check_nothing_more(self, count: int) -> None:
        """Make sure that no message arrives beyond those that were published.

        Raises:
            Wrong: there was one.
        """
        self.swarm.run_until_quiet(quiet_seconds=0.1, limit_seconds=2.0)
        if self.swarm.tally.messages > count:
            raise Wrong(f'{self.swarm.tally.messages} messages instead of {count}')

    def check_witness(self, published: Sequence[bytes], *, complete: bool) -> None:
        """Compare what the witness received with what was published for it.

        Args:
            published: the messages in their order.
            complete: it is to have received all of them; else their beginning.

        Raises:
            Wrong: it received something else.
        """
        received = list(frames.iterate_messages(bytes(self.swarm.transcript)))
        wanted = list(published)[: len(received)]
        if received != wanted or (complete and len(received) != len(published)):
            raise Wrong(
                f'the witness received {len(received)} of {len(published)} messages'
                + ('' if received == wanted else ', and not those that were published')
            )


@dataclass(frozen=True, slots=True)
class Theatre:
    """Where stages are set up: one Redis, one directory, the sessions of some users.

    Attributes:
        redis: used by all contenders in turn.
        directory: for logs and the users' database.
        session_keys: sessions of users, empty as long as none were made.
        limits: how long things may take.
    """

    redis: RedisServer
    directory: Path
    session_keys: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)

    def stage(self, contender: Contender, **options: Any) -> Stage:
        """Return a stage for a contender; enter it to start its server.

        Args:
            contender: whose server is started.
            options: attributes of `Setup` that are not the default.
        """
        return Stage(contender, Setup(self.redis, self.directory, **options), self.limits)

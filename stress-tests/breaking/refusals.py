"""Let Redis refuse, forget, drop and mistake what histories are made of, and count what is missed.

It runs out of memory, is read-only, is busy with a script that is killed, forgets scripts, evicts
by each policy, has its keys deleted or replaced by others, and its clock jumps.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import redis

from breaking.histories import Acts, Breaker, NumberingPublisher
from breaking.returning import ReturningCrowd
from tests.programs import RedisServer
from tests.scratch import scratch_directory

COMPILER = shutil.which('cc')
CLOCK = Path(__file__).with_name('jumping_clock.c')
EVICTING = ('allkeys-lru', 'allkeys-random', 'volatile-lru', 'volatile-random', 'volatile-ttl')
SECONDS = 1.0
JUMP_SECONDS = 3600
ROOM_BYTES = 1_000_000


class JumpingRedis(RedisServer):
    """A Redis whose clock jumps when it is told to, if there is a compiler."""

    def __init__(self) -> None:
        directory = scratch_directory()
        self._offset = directory / 'offset'
        self.jump(0)
        super().__init__()
        if COMPILER is not None:
            library = directory / 'jumping_clock.so'
            subprocess.run(
                [COMPILER, '-shared', '-fPIC', '-O2', '-o', library, CLOCK], check=True, timeout=60
            )
            self._extra_env |= {'LD_PRELOAD': str(library), 'JUMPING_CLOCK': str(self._offset)}

    def jump(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead, or behind."""
        # In place: it is mapped.
        with self._offset.open('r+b' if self._offset.exists() else 'wb') as file:
            file.write(struct.pack('=q', seconds))


class Refuser(Breaker):
    """Let Redis do all but what it should."""

    master: JumpingRedis

    def new_redis(self) -> RedisServer:
        return JumpingRedis()

    def acts(self, crowd: ReturningCrowd, publisher: NumberingPublisher) -> Acts:
        acts: dict[str, Callable[[redis.Redis], object]] = {
            'out of memory': self._run_out_of_memory,
            'read-only': self._be_read_only,
            'killed scripts': self._kill_script,
            'forgot scripts': self._forget_scripts,
            'lost streams': partial(self._lose, ('stream',)),
            'lost positions': partial(self._lose, ('position',)),
            'lost both': partial(self._lose, ('stream', 'position')),
            'mistook streams': partial(self._mistake, 'stream'),
            'mistook positions': partial(self._mistake, 'position'),
        }
        acts |= {f'evicted by {policy}': partial(self._evict, policy) for policy in EVICTING}
        if COMPILER is not None:
            acts |= {
                'clock ahead': partial(self._jump, JUMP_SECONDS),
                'clock behind': partial(self._jump, -JUMP_SECONDS),
            }

        def with_clients_away(act: Callable[[redis.Redis], object]) -> None:
            def do() -> None:
                with self.master.client() as client:
                    act(client)

            thread = threading.Thread(target=do)
            thread.start()
            # Some come back in the midst of it, others stay.
            self.cut_clients(crowd)
            while thread.is_alive():
                crowd.run(0.05)
            thread.join()

        return {
            # So that what is lost is not in memory either.
            'killed processes': lambda: self.kill_process(crowd),
            **{name: partial(with_clients_away, act) for name, act in acts.items()},
        }

    # Refusing

    def _run_out_of_memory(self, client: redis.Redis) -> None:
        client.config_set('maxmemory', 1)
        time.sleep(SECONDS)
        client.config_set('maxmemory', 0)

    def _be_read_only(self, client: redis.Redis) -> None:
        client.replicaof('127.0.0.1', 1)
        time.sleep(SECONDS)
        client.replicaof('NO', 'ONE')

    def _kill_script(self, client: redis.Redis) -> None:
        client.config_set('lua-time-limit', 50)
        with self.master.client() as other:
            thread = threading.Thread(target=self._be_busy, args=(other,))
            thread.start()
            time.sleep(SECONDS)
            client.script_kill()
            thread.join()

    def _be_busy(self, client: redis.Redis) -> None:
        with contextlib.suppress(redis.ResponseError):
            client.eval('while true do end', 0)

    def _forget_scripts(self, client: redis.Redis) -> None:
        client.script_flush()

    # Losing

    def _keys(self, client: redis.Redis, kind: str) -> Iterator[bytes]:
        yield from client.scan_iter(f'ws4redis:{kind}:*', count=1000)

    def _lose(self, kinds: tuple[str, ...], client: redis.Redis) -> None:
        client.delete(*[key for kind in kinds for key in self._keys(client, kind)])
        self.gaps_forced += 1

    def _mistake(self, kind: str, client: redis.Redis) -> None:
        for key in list(self._keys(client, kind)):
            client.set(key, 'nonsense', ex=60)
        self.gaps_forced += 1

    def _evict(self, policy: str, client: redis.Redis) -> None:
        before = client.info('stats')['evicted_keys']
        client.config_set('maxmemory-policy', policy)
        client.config_set('maxmemory', client.info('memory')['used_memory'] + ROOM_BYTES)
        until = time.monotonic() + SECONDS
        junk = 0
        while time.monotonic() < until:
            with client.pipeline(transaction=False) as pipeline:
                for number in range(junk, junk + 100):
                    pipeline.set(f'junk:{number}', 'x' * 1000, ex=600)
                pipeline.execute()
            junk += 100
        assert client.info('stats')['evicted_keys'] > before
        client.config_set('maxmemory', 0)
        client.config_set('maxmemory-policy', 'noeviction')
        for start in range(0, junk, 1000):
            client.unlink(*[f'junk:{n}' for n in range(start, start + 1000)])
        self.gaps_forced += 1

    def _jump(self, seconds: int, client: redis.Redis) -> None:
        before = client.time()[0]
        self.master.jump(seconds)
        time.sleep(SECONDS)
        assert abs(client.time()[0] - before) > JUMP_SECONDS / 2
        self.master.jump(0)
        time.sleep(SECONDS / 4)
        self.gaps_forced += 2

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import transaction

from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.live import Progress
from ws4redis.live import progress as module
from ws4redis.live.trailing import Trailing
from ws4redis.test import MemoryBroker, publish_in_memory


@pytest.fixture
def memory() -> Iterator[MemoryBroker]:
    with publish_in_memory() as memory:
        yield memory


def states(memory: MemoryBroker, facility: str = 'job') -> list[dict[str, Any]]:
    return [json.loads(message) for message in memory.published(facility, broadcast=True)]


def test_the_start_and_the_end_are_told(memory: MemoryBroker) -> None:
    with Progress('job', total=2) as progress:
        progress.advance()
        progress.advance(text='nearly')
    first, *_, last = states(memory)
    assert (first['state'], first['done'], first['total']) == ('running', 0, 2)
    assert (last['state'], last['done'], last['text']) == ('done', 2, 'nearly')


def test_a_flood_of_steps_is_told_ten_times_a_second_and_the_last_always(
    memory: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module, 'monotonic', lambda: now)
    monkeypatch.setattr(module, 'trailing', Quiet())
    with Progress('job', total=10_000) as progress:
        for _ in range(10_000):
            now += 0.0005
            progress.advance()
    told = states(memory)
    # 5 seconds, the first and the last.
    assert 48 <= len(told) <= 53
    assert told[-1]['done'] == 10_000


class Quiet:
    """In the place of the thread that tells what was held back."""

    def add(self, telling: object, due: float) -> None:
        pass

    def discard(self, telling: object) -> None:
        pass


def test_what_was_held_back_before_a_long_step_is_told_soon(memory: MemoryBroker) -> None:
    with Progress('job', total=100) as progress:
        for _ in range(50):
            progress.advance()
        wait_until(lambda: states(memory)[-1]['done'] == 50)
    assert states(memory)[-1]['state'] == 'done'


def test_rate_and_time_left_follow_the_last_seconds(
    memory: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module, 'monotonic', lambda: now)
    progress = Progress('job', total=1000)
    for steps, seconds in ((10, 1.0), *((1, 1.0),) * 100):
        now += seconds
        progress.advance(steps)
    last = states(memory)[-1]
    assert last['rate'] == pytest.approx(1, rel=0.05)
    assert last['left'] == pytest.approx((1000 - last['done']) / last['rate'], rel=0.01)


def test_without_a_total_nothing_is_foretold(memory: MemoryBroker) -> None:
    with Progress('job') as progress:
        progress.advance(3)
    assert states(memory)[-1]['total'] is None
    assert states(memory)[-1]['left'] is None


def test_an_exception_is_a_failure_whose_text_stays_on_the_server(memory: MemoryBroker) -> None:
    with pytest.raises(RuntimeError), Progress('job', total=2) as progress:
        progress.advance(text='row 1')
        raise RuntimeError('password=secret')
    assert states(memory)[-1]['state'] == 'failed'
    assert all(b'secret' not in item.message for item in memory.outbox)


def test_the_name_of_a_file_that_is_no_unicode_breaks_no_task(memory: MemoryBroker) -> None:
    with Progress('job') as progress:
        progress.advance(text=os.fsdecode(b'caf\xe9.csv'))
    assert states(memory)[-1]['text'] == 'caf\udce9.csv'


def test_a_failure_may_say_to_users_why(memory: MemoryBroker) -> None:
    with Progress('job') as progress:
        progress.fail('The file has no header.')
    assert [s['state'] for s in states(memory)] == ['running', 'failed']
    assert states(memory)[-1]['text'] == 'The file has no header.'


def test_a_loop_is_tracked_and_its_length_is_the_total(memory: MemoryBroker) -> None:
    assert list(Progress('job').track(range(5))) == [0, 1, 2, 3, 4]
    last = states(memory)[-1]
    assert (last['state'], last['done'], last['total']) == ('done', 5, 5)


def test_where_there_is_nothing_to_do_all_is_done(memory: MemoryBroker) -> None:
    assert list(Progress('job').track([])) == []
    with Progress('job', total=0):
        pass
    for state in states(memory):
        assert (state['done'], state['total'], state['left']) == (0, 0, None)
    assert [state['state'] for state in states(memory)] == ['running', 'done'] * 2


def test_a_loop_without_a_length_has_no_total(memory: MemoryBroker) -> None:
    assert len(list(Progress('job').track(iter('abc')))) == 3
    assert states(memory)[-1]['total'] is None


def test_an_empty_loop_is_done(memory: MemoryBroker) -> None:
    assert list(Progress('job').track([])) == []
    assert states(memory)[-1]['state'] == 'done'


def test_a_loop_that_is_left_is_stopped(memory: MemoryBroker) -> None:
    for item in Progress('job').track(range(5)):
        if item == 2:
            break
    assert states(memory)[-1]['state'] == 'stopped'
    assert states(memory)[-1]['done'] == 2


def test_a_loop_that_raises_within_the_block_has_failed(memory: MemoryBroker) -> None:
    with pytest.raises(ZeroDivisionError), Progress('job') as progress:
        for item in progress.track(range(5)):
            assert 1 / (2 - item)
    assert states(memory)[-1]['state'] == 'failed'


@pytest.mark.parametrize('total', [-1, float('nan'), float('inf'), '10', True])
def test_a_total_that_is_none_is_refused(total: Any) -> None:
    with pytest.raises(ValueError, match='total must be a number, 0 or above'):
        Progress('job', total)


@pytest.mark.parametrize('steps', ['1', None, float('nan'), True])
def test_steps_that_are_no_number_are_refused(memory: MemoryBroker, steps: Any) -> None:
    with pytest.raises(ValueError, match='steps must be a number'):
        Progress('job').advance(steps)


@pytest.mark.parametrize('facility', ['', None, 7])
def test_a_facility_without_a_name_is_refused(facility: Any) -> None:
    with pytest.raises(ValueError, match='facility must be a string'):
        Progress(facility)


def test_progress_for_nobody_goes_to_nobody(memory: MemoryBroker) -> None:
    with Progress('job', users=[]) as progress:
        progress.advance()
    assert memory.outbox == []


def test_progress_may_be_for_one_user(memory: MemoryBroker) -> None:
    list(Progress('job', users=['mary']).track([1]))
    assert memory.published('job', users=['mary'])
    assert memory.published('job', broadcast=True) == []


@pytest.mark.django_db(transaction=True)
def test_progress_is_told_within_a_transaction(memory: MemoryBroker, settings: Any) -> None:
    settings.WS4REDIS_ON_COMMIT = True
    with transaction.atomic():
        Progress('job').advance()
        assert len(states(memory)) == 1


def test_coroutines_tell_as_well(memory: MemoryBroker) -> None:
    async def job() -> None:
        async with Progress('job', total=3) as progress:
            await progress.aadvance(2)
        async for _ in Progress('other').atrack('ab'):
            pass

    asyncio.run(job())
    assert states(memory)[-1]['state'] == 'done'
    assert states(memory, 'other')[-1]['done'] == 2


def test_a_coroutine_that_is_cancelled_has_failed(memory: MemoryBroker) -> None:
    async def job() -> None:
        async with Progress('job'):
            await asyncio.sleep(60)

    async def cancelled() -> None:
        task = asyncio.create_task(job())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(cancelled())
    assert states(memory)[-1]['state'] == 'failed'


# With Redis


def test_a_late_comer_finds_the_last_state(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    list(Progress('import-42').track(range(1000)))
    kept = redis_client.get('broadcast:import-42')
    assert isinstance(kept, bytes)
    assert json.loads(kept)['state'] == 'done'
    assert 3500 < redis_client.ttl('broadcast:import-42') <= 3600


def test_a_thousand_tasks_at_once_each_tell_their_end_and_do_not_flood(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    since = time.monotonic()
    begun = threading.Barrier(1001)

    def task(number: int) -> None:
        with Progress(f'task-{number}', total=200) as progress:
            begun.wait()
            for _ in range(200):
                progress.advance()

    threads = [threading.Thread(target=task, args=[n]) for n in range(1000)]
    threading.stack_size(256 * 1024)
    try:
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(0)
    begun.wait(SOON_SECONDS)
    for thread in threads:
        thread.join(SOON_SECONDS)
    seconds = time.monotonic() - since
    kept = redis_client.mget([f'broadcast:task-{n}' for n in range(1000)])
    last = [json.loads(message or '') for message in kept]
    assert {(state['state'], state['done']) for state in last} == {('done', 200)}
    info = redis_client.info('commandstats')
    published = info['cmdstat_publish']['calls']
    assert published <= 1000 * (2 + 10 * (seconds + 1))
    shared = [t for t in threading.enumerate() if t.name == 'ws4redis-progress']
    assert len(shared) <= 1


def test_a_task_goes_on_while_redis_is_away_and_tells_its_end_afterwards(
    redis_server: RedisServer, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with Progress('job', total=10_000) as progress:
        redis_server.kill()
        while not warnings(caplog):
            progress.advance()
        for _ in range(1_000):
            progress.advance()
        redis_server.start()
    kept = redis_client.get('broadcast:job')
    assert isinstance(kept, bytes)
    assert json.loads(kept)['state'] == 'done'
    assert len(warnings(caplog)) == 1


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if 'progress is not told' in message]


# The thread that all share


class Recorder:
    def __init__(self, *, fails: bool = False) -> None:
        self.told = threading.Event()
        self.fails = fails

    def tell_trailing(self) -> None:
        self.told.set()
        if self.fails:
            raise RuntimeError('broken')


def test_the_shared_thread_survives_a_task_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    trailing = Trailing()
    broken, fine = Recorder(fails=True), Recorder()
    trailing.add(broken, time.monotonic())
    trailing.add(fine, time.monotonic() + 0.01)
    assert fine.told.wait(SOON_SECONDS)
    assert broken.told.is_set()


def test_the_shared_thread_takes_what_is_due_first(monkeypatch: pytest.MonkeyPatch) -> None:
    trailing = Trailing()
    later, sooner = Recorder(), Recorder()
    trailing.add(later, time.monotonic() + 3600)
    trailing.add(sooner, time.monotonic())
    assert sooner.told.wait(SOON_SECONDS)
    assert not later.told.is_set()
    trailing.discard(later)


def test_the_shared_thread_ends_when_idle_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('ws4redis.live.trailing.IDLE_SECONDS', 0.01)
    trailing = Trailing()
    for _ in range(2):
        recorder = Recorder()
        trailing.add(recorder, time.monotonic())
        assert recorder.told.wait(SOON_SECONDS)
        wait_until(lambda: trailing._thread is None)

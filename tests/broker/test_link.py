"""A connection to Redis that belongs to the loop, against a Redis that the test plays."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import hiredis
import pytest

from tests.hub.rig import Clock, ScriptedRedis, StepDriver, bulk, push, subscribed
from ws4redis.broker import link as redis_link
from ws4redis.broker.link import RedisLink, pack_command
from ws4redis.loop.drivers import Done
from ws4redis.loop.loop import Loop


class Link(RedisLink):
    """Record what a link is told."""

    def __init__(self, loop: Loop, redis: ScriptedRedis) -> None:
        super().__init__(loop, redis.connect, name='test', timeout_seconds=10)
        self.events: list[str] = []
        self.replies: list[Any] = []
        self.pushes: list[Any] = []
        self.may_read = True

    def connected(self) -> None:
        self.events.append('connected')
        self.write(pack_command(b'HELLO', 'wörld', 3))
        # Whatever the test sends is an answer.
        for _ in range(2000):
            self.expect(lambda reply: self.reply_received(reply), self.replies.append)

    def disconnected(self) -> None:
        self.events.append('disconnected')

    def push_received(self, push: list[Any]) -> None:
        self.pushes.append(push)

    def reply_received(self, reply: Any) -> None:
        self.replies.append(reply)
        if reply == b'broken':
            raise RuntimeError('broken reply')

    def wants_replies(self) -> bool:
        return self.may_read


class Rig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.redis = ScriptedRedis()
        driver = StepDriver()
        self.loop = Loop(driver)
        self.loop.timers.clock = self.clock
        driver.start(self.loop)
        self.link = Link(self.loop, self.redis)
        self.loop.at_turn_end(self.link.flush)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def start(self) -> None:
        self.link.start()
        self.turn()

    def pass_time(self, seconds: float, *, step: float = 0.5) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.turn(2)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.turn(2)
    rig.link.stop()
    rig.loop.close()
    rig.redis.close()


def test_a_new_connection_is_written_what_it_needs_first(rig: Rig) -> None:
    rig.start()
    assert rig.link.is_connected
    assert rig.link.events == ['connected']
    assert rig.redis.commands() == [[b'HELLO', 'wörld'.encode(), b'3']]


def test_replies_are_read_however_they_are_cut(rig: Rig) -> None:
    rig.start()
    stream = bulk(b'one') + bulk(b'two') * 2 + bulk(None)
    for position in range(len(stream)):
        rig.redis.reply(stream[position : position + 1])
        rig.turn()
    assert rig.link.replies == [b'one', b'two', b'two', None]


def test_one_wake_up_drains_all_that_has_arrived(rig: Rig) -> None:
    rig.start()
    rig.redis.reply(bulk(b'x') * 1000)
    rig.turn()
    assert len(rig.link.replies) == 1000


def test_a_reply_larger_than_a_read_is_put_together(rig: Rig) -> None:
    rig.start()
    reply = bulk(b'x' * 300_000)
    while reply:
        try:
            reply = reply[rig.redis.peers[0].send(reply) :]
        except BlockingIOError:
            rig.turn()
    rig.turn(10)
    assert [len(r) for r in rig.link.replies] == [300_000]


def test_while_replies_are_not_wanted_none_is_read(rig: Rig) -> None:
    rig.start()
    rig.link.may_read = False
    rig.redis.reply(bulk(b'waits'))
    rig.turn(3)
    assert rig.link.replies == []
    rig.link.may_read = True
    rig.turn(2)
    assert rig.link.replies == [b'waits']


def test_what_redis_does_not_take_is_written_later_in_order(rig: Rig) -> None:
    rig.start()
    commands = [[b'SET', b'%d' % number, b'x' * 10_000] for number in range(200)]
    for command in commands:
        rig.link.write(pack_command(*command))
    rig.turn()
    assert rig.link.unwritten_bytes > 0
    got = rig.redis.commands()
    while len(got) < 201:
        rig.turn()
        got += rig.redis.commands()
    assert got[1:] == commands
    assert rig.link.unwritten_bytes == 0


def test_a_lost_connection_is_made_again_at_once_and_both_are_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start()
    rig.redis.hang_up()
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected', 'connected']
    assert rig.link.reconnects == 1
    assert len(rig.redis.peers) == 2
    assert caplog.text.count('lost the connection to Redis (test)') == 1
    assert caplog.text.count('connected to Redis again (test)') == 1


def test_without_redis_it_is_said_once_and_tried_again_with_growing_delays(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.redis.refuses = True
    attempts: list[float] = []
    connect = rig.redis.connect

    def count() -> socket.socket:
        attempts.append(rig.clock.now)
        return connect()

    rig.link._connect_blocking = count
    rig.start()
    rig.pass_time(60, step=0.05)
    assert caplog.text.count('cannot connect to Redis (test)') == 1
    delays = [later - earlier for earlier, later in pairwise(attempts)]
    assert delays[0] < 0.1
    assert max(delays) <= redis_link.LAST_RETRY_SECONDS + 0.1
    assert min(delays[-3:]) >= redis_link.LAST_RETRY_SECONDS / 2
    assert 12 <= len(attempts) <= 40
    rig.redis.refuses = False
    rig.pass_time(6)
    assert rig.link.is_connected
    assert 'connected to Redis again (test)' in caplog.text
    # It was never connected before: that is no reconnection.
    assert rig.link.reconnects == 0


def test_what_was_not_written_to_a_lost_connection_is_not_written_to_the_next(rig: Rig) -> None:
    rig.start()
    rig.redis.commands()
    rig.link.write(b'half a comm')
    rig.link.lost('by the test')
    rig.turn(3)
    assert rig.redis.commands() == [[b'HELLO', 'wörld'.encode(), b'3']]


def test_half_a_reply_of_a_lost_connection_does_not_reach_the_next(rig: Rig) -> None:
    rig.start()
    rig.redis.reply(b'$100\r\nhalf')
    rig.turn()
    rig.redis.hang_up()
    rig.turn(3)
    rig.redis.reply(bulk(b'whole'))
    rig.turn()
    assert rig.link.replies == [b'whole']


def test_a_silent_connection_is_asked_and_stays_while_it_answers(rig: Rig) -> None:
    rig.start()
    rig.redis.commands()
    pings = 0
    for _ in range(60):
        rig.pass_time(1)
        for command in rig.redis.commands():
            assert command == [b'PING']
            pings += 1
            rig.redis.reply(b'+PONG\r\n')
    assert 4 <= pings <= 12
    assert rig.link.events == ['connected']


def test_a_redis_that_hangs_is_given_up_in_time(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.start()
    rig.pass_time(redis_link.HEALTH_CHECK_SECONDS + 10)
    assert rig.link.events == ['connected']
    rig.pass_time(5)
    assert rig.link.events == ['connected', 'disconnected', 'connected']
    assert 'no answer for 10 seconds' in caplog.text


def test_a_connection_that_talks_is_not_asked(rig: Rig) -> None:
    rig.start()
    rig.redis.commands()
    for _ in range(60):
        rig.redis.reply(bulk(b'x'))
        rig.pass_time(1)
    assert rig.redis.commands() == []


@pytest.mark.parametrize('garbage', [b'no Redis\r\n', b'$-5\r\n', b'HTTP/1.1 400 Bad Request\r\n'])
def test_what_is_not_redis_ends_the_connection(rig: Rig, garbage: bytes) -> None:
    rig.start()
    rig.redis.reply(garbage)
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected', 'connected']


def test_an_exception_of_our_own_starts_the_connection_over(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start()
    rig.redis.reply(bulk(b'broken') + bulk(b'after'))
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected', 'connected']
    assert 'broken reply' in caplog.text
    rig.redis.reply(bulk(b'fine'))
    rig.turn()
    assert rig.link.replies == [b'broken', b'fine']


def test_stopped_it_closes_and_connects_no_more(rig: Rig) -> None:
    rig.start()
    rig.link.stop()
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected']
    assert rig.redis.peers[0].recv(1000) != b''
    assert rig.redis.peers[0].recv(1000) == b''
    assert len(rig.redis.peers) == 1


def test_stopped_while_it_connects_it_closes_what_it_gets(rig: Rig) -> None:
    rig.link.start()
    rig.link.stop()
    rig.turn(2)
    assert rig.redis.peers[0].recv(1000) == b''
    assert not rig.link.is_connected


class Answers:
    """Note who was given which answer."""

    def __init__(self, link: RedisLink) -> None:
        self.given: list[tuple[str, str, Any]] = []
        self._link = link
        link._expected.clear()

    def ask(self, name: str) -> None:
        self._link.send(name, replied=self._note(name, 'reply'), refused=self._note(name, 'error'))

    def subscribe(self, *names: str, word: bytes = b'SUBSCRIBE') -> None:
        command = ' '.join([word.decode(), *names])
        self._link.send_subscription(
            word,
            *map(str.encode, names),
            confirmed=self._note(command, 'confirmed'),
            refused=self._note(command, 'error'),
        )

    def _note(self, name: str, kind: str) -> Callable[[Any], object]:
        return lambda answer: self.given.append((name, kind, answer))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(name, kind) for name, kind, _ in self.given]


def test_each_command_gets_its_own_answer_be_it_a_reply_or_an_error(rig: Rig) -> None:
    rig.start()
    answers = Answers(rig.link)
    for name in ('a', 'b', 'c'):
        answers.ask(name)
    rig.redis.reply(bulk(b'1') + b'-NOPERM no\r\n' + b'*1\r\n:3\r\n')
    rig.turn()
    assert answers.kinds == [('a', 'reply'), ('b', 'error'), ('c', 'reply')]
    assert [str(answer) for *_, answer in answers.given] == ["b'1'", 'NOPERM no', '[3]']


def test_a_subscription_is_confirmed_by_the_push_that_names_it(rig: Rig) -> None:
    rig.start()
    answers = Answers(rig.link)
    answers.subscribe('x')
    answers.ask('GET')
    answers.subscribe('y')
    answers.subscribe('x', word=b'UNSUBSCRIBE')
    news = push(b'message', b'x', b'live')
    rig.redis.reply(subscribed(b'x') + news + bulk(None) + news + b'-NOPERM y\r\n')
    rig.redis.reply(push(b'unsubscribe', b'x', 0))
    rig.turn()
    assert answers.kinds == [
        ('SUBSCRIBE x', 'confirmed'),
        ('GET', 'reply'),
        ('SUBSCRIBE y', 'error'),
        ('UNSUBSCRIBE x', 'confirmed'),
    ]
    assert rig.link.pushes == [[b'message', b'x', b'live']] * 2


def test_subscriptions_of_one_command_are_confirmed_or_refused_together(rig: Rig) -> None:
    rig.start()
    answers = Answers(rig.link)
    answers.subscribe('a', 'b')
    answers.ask('GET')
    answers.subscribe('c', 'd')
    answers.ask('PING')
    rig.redis.reply(subscribed(b'a'))
    rig.turn()
    assert answers.kinds == []
    rig.redis.reply(subscribed(b'b') + bulk(None) + b'-NOPERM c\r\n' + bulk(b'PONG'))
    rig.turn()
    assert answers.kinds == [
        ('SUBSCRIBE a b', 'confirmed'),
        ('GET', 'reply'),
        ('SUBSCRIBE c d', 'error'),
        ('PING', 'reply'),
    ]


def test_a_confirmation_that_nobody_waits_for_is_news(rig: Rig) -> None:
    rig.start()
    answers = Answers(rig.link)
    answers.subscribe('x')
    # A node of a cluster says so when a slot has moved away.
    rig.redis.reply(push(b'unsubscribe', b'other', 0) + subscribed(b'x'))
    rig.turn()
    assert answers.kinds == [('SUBSCRIBE x', 'confirmed')]
    assert rig.link.pushes == [[b'unsubscribe', b'other', 0]]


@pytest.mark.parametrize('reply', [bulk(b'?'), b'-ERR what?\r\n', b'+OK\r\n'])
def test_an_answer_that_nobody_waits_for_starts_the_connection_over(rig: Rig, reply: bytes) -> None:
    rig.start()
    Answers(rig.link)
    rig.redis.reply(reply)
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected', 'connected']


def test_a_plain_reply_in_place_of_a_confirmation_starts_the_connection_over(rig: Rig) -> None:
    rig.start()
    answers = Answers(rig.link)
    answers.subscribe('x')
    rig.redis.reply(bulk(b'?'))
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected', 'connected']
    assert answers.given == []


@pytest.mark.parametrize('code', sorted(redis_link.AWAY_ERRORS))
def test_an_answer_that_means_away_starts_over_and_is_given_to_nobody(rig: Rig, code: str) -> None:
    rig.start()
    answers = Answers(rig.link)
    answers.ask('a')
    rig.redis.reply(f'-{code} not now\r\n'.encode())
    rig.turn(3)
    assert rig.link.events == ['connected', 'disconnected', 'connected']
    assert answers.given == []


def test_a_connection_that_the_question_for_its_health_finds_lost_leaves_no_timer(rig: Rig) -> None:
    rig.start()
    # Nothing is read, so that only writing can find out.
    rig.link.may_read = False
    rig.redis.hang_up()
    while rig.link.is_connected:
        rig.clock.advance(redis_link.HEALTH_CHECK_SECONDS)
        rig.loop.turn(0)
    rig.link.may_read = True
    rig.pass_time(1)
    assert rig.link.is_connected
    check = rig.link._check_health
    assert [timer.function == check for *_, timer in rig.loop.timers._heap].count(True) == 1


class SlowDriver(StepDriver):
    """Let the test say when each attempt to connect comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[Callable[[], object]] = []

    def submit_apart(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        self.attempts.append(lambda: self.submit(done, function, *args))


@pytest.fixture
def slow_rig(rig: Rig) -> Rig:
    driver = SlowDriver()
    driver.start(rig.loop)
    rig.loop.driver = driver
    return rig


def attempts_of(rig: Rig) -> list[Callable[[], object]]:
    assert isinstance(rig.loop.driver, SlowDriver)
    return rig.loop.driver.attempts


def test_an_attempt_that_does_not_come_back_is_given_up_and_another_one_made(
    slow_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = slow_rig
    rig.start()
    assert not rig.link.is_away
    rig.pass_time(10.5)
    assert rig.link.is_away
    assert rig.link.events == ['disconnected']
    assert 'no connection within 10 seconds' in caplog.text
    stuck, second = attempts_of(rig)
    second()
    rig.turn()
    assert rig.link.is_connected
    # What the first one brings at last is of no use.
    stuck()
    rig.turn()
    assert rig.redis.peers[1].recv(100) == b''
    assert rig.link.events == ['disconnected', 'connected']


def test_attempts_that_do_not_come_back_do_not_add_up(slow_rig: Rig) -> None:
    rig = slow_rig
    rig.start()
    rig.pass_time(200)
    attempts = attempts_of(rig)
    assert len(attempts) == redis_link.MAX_STUCK_ATTEMPTS
    attempts[0]()
    rig.pass_time(10)
    assert len(attempts) == redis_link.MAX_STUCK_ATTEMPTS + 1
    attempts[-1]()
    rig.turn()
    assert rig.link.is_connected
    for stuck in attempts[1:-1]:
        stuck()
    rig.pass_time(10)
    assert rig.link.events == ['disconnected', 'connected']


def test_commands_are_packed_as_redis_reads_them() -> None:
    reader = hiredis.Reader()
    reader.feed(pack_command(b'SET', 'größe', 42, b'\r\n'))
    assert reader.gets() == [b'SET', 'größe'.encode(), b'42', b'\r\n']

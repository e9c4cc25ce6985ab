"""What is done with each contender, and which numbers come of it.

Each is a function of a theatre and a contender that returns metrics; a metric's name ends with its
unit. What did not arrive within the limit of time is not waited for: the rate is that of what did
arrive, and `complete_share` tells which share of the messages that was.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from .contenders import Code, Contender
from .publishers import timed_message
from .stage import Stage, Theatre, Usage, Wrong

Metrics = dict[str, float]

PRIVATE_BATCH_SECONDS = 0.01
UPSTREAM_BATCH = 200
UPSTREAM_IN_FLIGHT_EACH = 2
SETTLE_SECONDS = 1.0
STORM_RETRY_SECONDS = 0.25


def burst(
    theatre: Theatre,
    contender: Contender,
    *,
    websockets: int,
    messages: int,
    histories: bool = False,
) -> Metrics:
    """Publish many messages at once to everybody."""
    with theatre.stage(contender, histories=histories) as stage:
        stage.subscribe(websockets)
        stage.swarm.choose_witness()
        messages = _shortened(contender, messages, websockets)
        published = [stage.message() for _ in range(messages)]
        return _fan_out(stage, published, websockets)


def compressed_burst(
    theatre: Theatre, contender: Contender, *, websockets: int, messages: int
) -> Metrics:
    """Publish messages of 2 KB JSON to everybody, with compression negotiated."""
    with theatre.stage(contender, compression=True) as stage:
        stage.subscribe(websockets)
        stage.swarm.choose_witness()
        messages = _shortened(contender, messages, websockets)
        published = [json_message(number) for number in range(messages)]
        metrics = _fan_out(stage, published, websockets)
        metrics['message_bytes'] = statistics.fmean(map(len, published))
        metrics['sent_bytes_per_message'] = len(stage.swarm.transcript) / max(
            1, stage.swarm.tally.messages / websockets
        )
        return metrics


def _shortened(contender: Contender, messages: int, websockets: int) -> int:
    return max(1, min(messages, contender.deliveries_in_time // websockets))


def _fan_out(stage: Stage, published: Sequence[bytes], websockets: int) -> Metrics:
    expected = len(published) * websockets
    with stage.measure() as usage:
        stage.publisher.publish(('bench', message) for message in published)
        complete = stage.receive(expected)
    if complete:
        stage.check_nothing_more(expected)
    stage.check_witness(published, complete=complete)
    if not stage.swarm.tally.messages:
        raise Wrong(f'nothing arrived within {stage.limits.run_seconds:g} seconds')
    return {
        'delivered_per_second': stage.swarm.tally.messages / usage.seconds,
        'published_messages': len(published),
        **_spent(stage, usage, expected),
    }


def steady(
    theatre: Theatre,
    contender: Contender,
    *,
    websockets: int,
    per_second: float = 20,
    seconds: float = 10,
    **options: Any,
) -> Metrics:
    """Publish single messages to everybody, at a steady rate that a server can keep up with."""
    with theatre.stage(contender, **options) as stage:
        stage.subscribe(websockets)
        if options.get('seen'):
            theatre.redis.open_live_page()
        stage.swarm.choose_witness()
        stage.swarm.reset(reads_latency=True)
        published: list[bytes] = []

        def publish() -> None:
            published.append(stage.message())
            stage.publisher.publish([('bench', published[-1])])

        pace = Pace(1 / per_second, round(per_second * seconds), publish)
        expected = pace.times * websockets
        usage, _ = _measure_at_pace(stage, pace, expected, published)
        return {**_latencies(stage), **_spent(stage, usage, expected)}


def _measure_at_pace(
    stage: Stage, pace: 'Pace', expected: int, to_witness: Sequence[bytes]
) -> tuple[Usage, bool]:
    """Publish at a pace; return what was spent, and whether all has arrived in time."""
    with stage.measure() as usage:
        complete = stage.receive(
            expected,
            next_due=pace.next_due,
            limit_seconds=pace.seconds + stage.limits.straggle_seconds,
        )
    if complete:
        stage.check_nothing_more(expected)
    stage.check_witness(to_witness, complete=complete)
    return usage, complete


def private(
    theatre: Theatre,
    contender: Contender,
    *,
    users: int,
    per_second: int = 20_000,
    seconds: float = 5,
) -> Metrics:
    """Publish to single users, each of whom has a channel: at a rate, then as fast as it goes."""
    facilities = [f'user-{number}' for number in range(users)]
    with theatre.stage(contender) as stage:
        stage.open([contender.path(name, 'subscribe-broadcast') for name in facilities])
        stage.await_subscribed(facilities)
        stage.swarm.choose_witness()
        stage.swarm.reset(reads_latency=True)
        batch = round(per_second * PRIVATE_BATCH_SECONDS)
        to_witness: list[bytes] = []
        turn = iter(range(2**62))

        def publish() -> None:
            messages = []
            for _ in range(batch):
                number = next(turn) % users
                message = stage.message()
                messages.append((facilities[number], message))
                if number == 0:
                    to_witness.append(message)
            stage.publisher.publish(messages)

        pace = Pace(PRIVATE_BATCH_SECONDS, round(seconds / PRIVATE_BATCH_SECONDS), publish)
        expected = pace.times * batch
        usage, complete = _measure_at_pace(stage, pace, expected, to_witness)
        metrics = {
            'delivered_per_second': stage.swarm.tally.messages / usage.seconds,
            **_latencies(stage),
            **_spent(stage, usage, expected),
        }
        # What cannot keep up with the rate is saturated already.
        metrics['peak_delivered_per_second'] = (
            _private_peak(stage, facilities, expected)
            if complete
            else metrics['delivered_per_second']
        )
        return metrics


def _private_peak(stage: Stage, facilities: Sequence[str], count: int) -> float:
    stage.swarm.reset()
    message = timed_message(0)
    with stage.measure() as usage:
        stage.publisher.publish(
            (facilities[number % len(facilities)], message) for number in range(count)
        )
        stage.receive(count)
    return stage.swarm.tally.messages / usage.seconds


def upstream(
    theatre: Theatre, contender: Contender, *, clients: int, messages_each: int
) -> Metrics:
    """Let many clients send, through Redis, to one subscriber."""
    with theatre.stage(contender) as stage:
        stage.open([contender.path('bench', 'subscribe-broadcast')])
        stage.await_subscribed(['bench'])
        stage.open([contender.path('bench', 'publish-broadcast')] * clients)
        expected = clients * messages_each
        in_flight = clients * UPSTREAM_IN_FLIGHT_EACH
        sent = 0

        def send() -> float:
            # So many are under way at once that the server is never idle. More would measure how it
            # copes with a flood. A part at a time, so that the loop reads, too; each client sends
            # one message after the others have sent theirs.
            nonlocal sent
            end = min(expected, stage.swarm.tally.messages + in_flight, sent + UPSTREAM_BATCH)
            while sent < end:
                message = timed_message(sent)
                stage.swarm.send(1 + sent % clients, message)
                sent += 1
            return 0.0 if sent < min(expected, stage.swarm.tally.messages + in_flight) else 0.1

        stage.swarm.reset()
        with stage.measure() as usage:
            complete = stage.receive(expected, next_due=send)
        if complete:
            stage.check_nothing_more(expected)
        return {
            'messages_per_second': stage.swarm.tally.messages / usage.seconds,
            **_spent(stage, usage, expected),
        }


def handler_echo(
    theatre: Theatre, contender: Contender, *, code: Code, clients: int, round_trips: int
) -> Metrics:
    """Let each client send a message, wait until a handler sends it back, and send the next."""
    with theatre.stage(contender, handlers=code) as stage:
        stage.open([f'/handler/{code.value}'] * clients)
        # Threads and imports are made with the first ones.
        _go_round(stage, clients, max(1, round_trips // 10))
        return _go_round(stage, clients, round_trips)


def _go_round(stage: Stage, clients: int, round_trips: int) -> Metrics:
    swarm = stage.swarm
    expected = clients * round_trips
    swarm.reset(reads_latency=True)
    sent = clients

    def answer(descriptor: int) -> None:
        nonlocal sent
        if sent < expected:
            sent += 1
            swarm.send_from(descriptor, stage.message())

    swarm.call_on_message(answer)
    with stage.measure() as usage:
        for index in range(clients):
            swarm.send(index, stage.message())
        complete = stage.receive(expected)
    swarm.call_on_message(None)
    if complete:
        stage.check_nothing_more(expected)
    return {
        'round_trips_per_second': swarm.tally.messages / usage.seconds,
        **_latencies(stage),
        **_spent(stage, usage, expected),
    }


def handshakes(
    theatre: Theatre, contender: Contender, *, websockets: int, of_users: bool = False
) -> Metrics:
    """Open websockets that subscribe to a broadcast, or to messages for their session's user."""
    path = contender.user_path() if of_users else contender.path('bench', 'subscribe-broadcast')
    cookies = [f'sessionid={key}' for key in theatre.session_keys] if of_users else []
    with theatre.stage(contender) as stage:
        # Imports and connections are made with the first ones.
        stage.open([path] * 20, cookies=cookies)
        with stage.measure() as usage:
            opening = stage.try_to_open(
                [path] * websockets, cookies=cookies, limit_seconds=stage.limits.run_seconds
            )
        return {
            'handshakes_per_second': opening.opened / opening.seconds,
            'complete_share': opening.opened / opening.wanted,
            'client_busy_share': usage.client_seconds / usage.seconds,
            'server_cpu_us_per_handshake': usage.server_seconds / max(1, opening.opened) * 1e6,
        }


def storm(theatre: Theatre, contender: Contender, *, websockets: int) -> Metrics:
    """Kill the server with its websockets, start it again, and let everybody come back at once."""
    with theatre.stage(contender) as stage:
        stage.subscribe(websockets)
        killed = time.monotonic()
        stage.kill_and_start_again()
        started = time.monotonic()
        stage.open([contender.path('bench', 'subscribe-broadcast')] * websockets)
        reached = stage.await_subscribed(['bench'], retry_seconds=STORM_RETRY_SECONDS)
        return {
            'back_seconds': reached - killed,
            'start_seconds': started - killed,
            'server_cpu_us_per_client': stage.server.cpu_seconds() / websockets * 1e6,
        }


def memory(
    theatre: Theatre, contender: Contender, *, websockets: int, compression: bool
) -> Metrics:
    """Measure by how much the server grows with websockets that do nothing.

    All of them have received a message, since some servers only then make their buffers.
    """
    first = max(10, websockets // 50)
    with theatre.stage(contender, compression=compression) as stage:
        stage.subscribe(first)
        before = stage.server.private_bytes()
        stage.subscribe(websockets - first)
        time.sleep(SETTLE_SECONDS)
        grown = stage.server.private_bytes() - before
        return {'kb_per_websocket': grown / (websockets - first) / 1024}


class Pace:
    """Do something at a steady rate, a fixed number of times.

    Args:
        interval_seconds: between two times.
        times: how often.
        action: what is done.
    """

    def __init__(self, interval_seconds: float, times: int, action: Callable[[], None]) -> None:
        self.times = times
        self.seconds = times * interval_seconds
        self._interval = interval_seconds
        self._action = action
        self._done = 0
        self._started = 0.0

    def next_due(self) -> float:
        """Do it if it is due; return the seconds until it is due again."""
        if self._done >= self.times:
            return 0.1
        now = time.monotonic()
        if not self._started:
            self._started = now
        due = self._started + self._done * self._interval
        if now >= due:
            self._done += 1
            self._action()
            due += self._interval
        return max(0.0, due - time.monotonic())


def json_message(number: int) -> bytes:
    """Return about 2 KB of JSON, as an application would send it."""
    rows = ','.join(
        f'{{"id":{number * 40 + row},"author":"user{(number * 7 + row * 13) % 500}",'
        f'"text":"message {row} of {number}","votes":{(row * number) % 97}}}'
        for row in range(31)
    )
    return f'{{"sequence":{number},"rows":[{rows}]}}'.encode()


def _latencies(stage: Stage) -> Metrics:
    latencies = sorted(stage.swarm.tally.latencies_ns)
    if not latencies:
        return {}
    return {
        'latency_median_ms': latencies[len(latencies) // 2] / 1e6,
        'latency_p99_ms': latencies[len(latencies) * 99 // 100] / 1e6,
    }


def _spent(stage: Stage, usage: Usage, expected: int) -> Metrics:
    delivered = stage.swarm.tally.messages
    return {
        'complete_share': delivered / expected,
        'client_busy_share': usage.client_seconds / usage.seconds,
        'server_cpu_us_per_delivery': usage.server_seconds / max(1, delivered) * 1e6,
    }

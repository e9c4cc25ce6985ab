"""Tell all other processes, by way of Redis, what this one does.

The snapshot is made in the loop at an interval; nothing in it costs more with more websockets.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import time
from collections import deque
from heapq import nlargest
from typing import Any

from ws4redis.broker.channels import facility_in
from ws4redis.broker.snapshots import (
    goodbye_commands,
    name_of_process,
    snapshot_commands,
)
from ws4redis.conf import conf
from ws4redis.hub.census import Census
from ws4redis.hub.hub import Hub
from ws4redis.hub.probe import Probe
from ws4redis.loop.lag import LagMeter
from ws4redis.loop.metrics import Declaration, Kind, declare, read_metrics
from ws4redis.servers.news import News
from ws4redis.servers.statistics import statistics_of

logger = logging.getLogger('ws4redis')

declare(Declaration('load', Kind.GAUGE, 'Cores that the process uses, 1 being a whole one'))
declare(Declaration('redis_seconds', Kind.GAUGE, 'How long Redis takes to answer a command'))

#: The busiest facilities that a snapshot names.
BUSIEST = 10
PAST_SECONDS = 900
PAST_POINTS = 90


class Snapshots:
    """Tell what a hub does, once per interval, for as long as it runs."""

    def __init__(self, hub: Hub, interval_seconds: float) -> None:
        self.name = name_of_process()
        self._hub = hub
        self._interval = interval_seconds
        self._lag = LagMeter(hub.loop)
        self._news = News(hub, self.name, interval_seconds)
        self._begun = time.time()
        self._round_trip: float | None = None
        self._refused = False
        self._before = (self._clock(), _cpu_seconds(), 0, 0)
        # Points of the last quarter of an hour: age is told by their distance from the last one.
        self._past: deque[list[float]] = deque(maxlen=PAST_POINTS)
        self._next_point = 0.0

    def start(self) -> None:
        """Begin; called from any thread."""
        self._hub.fanout.arrivals = {}
        self._hub.loop.call_soon(self._lag.start)
        self._hub.loop.call_soon(Census(self._hub, conf.key_prefix, self.name).start)
        self._hub.loop.call_soon(Probe(self._hub, self.name).start)
        self._hub.loop.call_soon(self._tell)

    def _clock(self) -> float:
        return self._hub.loop.timers.clock()

    def _tell(self) -> None:
        self._hub.loop.call_later(self._interval, self._tell)
        link = self._hub.links.commands
        snapshot = self.snapshot()
        if not link.is_connected:
            return
        since = self._clock()
        if self._hub.is_draining:
            commands = goodbye_commands(self.name)
        else:
            commands = snapshot_commands(self.name, snapshot, self._interval)
        for command in commands[:-1]:
            link.send(*command, refused=self._note_refusal)
        link.send(
            *commands[-1], replied=lambda _: self._answered(since), refused=self._note_refusal
        )
        self._news.look()

    def _answered(self, since: float) -> None:
        self._round_trip = self._clock() - since

    def _note_refusal(self, error: Exception) -> None:
        if not self._refused:
            self._refused = True
            logger.warning('Redis refuses to keep what this process tells of itself: %s', error)

    def snapshot(self) -> dict[str, Any]:
        """Return what there is to tell now, since the last time where it is a rate."""
        hub = self._hub
        counts = hub.statistics
        now, cpu = self._clock(), _cpu_seconds()
        then, cpu_then, sent_then, received_then = self._before
        passed = max(now - then, 1e-3)
        self._before = (now, cpu, counts.messages_sent, counts.messages_received)
        rates = {
            'load': round((cpu - cpu_then) / passed, 4),
            'sent_per_second': round((counts.messages_sent - sent_then) / passed, 2),
            'received_per_second': round((counts.messages_received - received_then) / passed, 2),
            'lag_p50': round(self._lag.percentile(50), 5),
            'lag_p99': round(self._lag.percentile(99), 5),
            'redis_seconds': None if self._round_trip is None else round(self._round_trip, 5),
        }
        if now >= self._next_point:
            self._next_point = now + PAST_SECONDS / PAST_POINTS
            self._past.append(
                [
                    hub.open_count,
                    rates['sent_per_second'] or 0,
                    rates['received_per_second'] or 0,
                    rates['lag_p99'] or 0,
                ]
            )
        return {
            'host': socket.gethostname(),
            'pid': os.getpid(),
            'begun': round(self._begun),
            'statistics': statistics_of(hub),
            'metrics': read_metrics(),
            'rates': rates,
            'past': list(self._past),
            'facilities': self._busiest(passed),
        }

    def _busiest(self, passed: float) -> list[list[Any]]:
        """Return the facilities with most deliveries: name, messages a second, websockets."""
        arrivals, self._hub.fanout.arrivals = self._hub.fanout.arrivals or {}, {}
        messages: dict[str, int] = {}
        audience: dict[str, int] = {}
        for name, count in arrivals.items():
            facility = facility_in(name.decode(errors='replace'), prefix=conf.key_prefix)
            if facility is None:
                continue
            messages[facility] = messages.get(facility, 0) + count
            channel = self._hub.bus.channels.get(name)
            if channel is not None:
                members = sum(map(len, channel.audiences.values()))
                audience[facility] = audience.get(facility, 0) + members
        busiest = nlargest(BUSIEST, messages, key=lambda f: messages[f] * audience.get(f, 0))
        return [[f, round(messages[f] / passed, 2), audience.get(f, 0)] for f in busiest]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def tell_snapshots(hub: Hub, interval_seconds: float) -> Snapshots:
    """Let a hub tell of itself from now on."""
    snapshots = Snapshots(hub, interval_seconds)
    snapshots.start()
    return snapshots

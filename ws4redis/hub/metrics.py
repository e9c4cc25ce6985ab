"""What the hub counts, said once: names, kinds and meanings.

The counts themselves are attributes of :class:`~ws4redis.hub.statistics.Statistics`, or numbers
that the hub has anyway.
"""

from __future__ import annotations

from typing import Final

from ws4redis.loop.metrics import Declaration, Kind, counter, declare

_STATISTICS: Final = (
    ('open', Kind.GAUGE, 'Open websockets', None),
    ('connections', Kind.GAUGE, 'Open connections by transport', 'transport'),
    ('connections_of_kind', Kind.GAUGE, 'Open connections by what they are for', 'kind'),
    ('places_taken', Kind.GAUGE, 'Websockets and handshakes that count for the limit', None),
    ('channels', Kind.GAUGE, 'Channels of Redis that are subscribed to', None),
    ('handshakes', Kind.COUNTER, 'Handshakes by the status of their answer', 'status'),
    ('closes', Kind.COUNTER, 'Websockets that have ended, by close code', 'code'),
    ('messages_received', Kind.COUNTER, 'Messages that clients sent', None),
    ('bytes_received', Kind.COUNTER, 'Bytes that came from clients', None),
    ('messages_sent', Kind.COUNTER, 'Messages that the kernel took for a client', None),
    ('bytes_sent', Kind.COUNTER, 'Bytes that the kernel took', None),
    ('messages_not_delivered', Kind.COUNTER, 'Messages that were given up, by close code', 'code'),
    ('messages_not_published', Kind.COUNTER, "Clients' messages that were given up", 'code'),
    ('messages_published', Kind.COUNTER, "Clients' messages that Redis has confirmed", None),
    ('redis_messages', Kind.COUNTER, 'Messages that came from Redis', None),
    ('gaps', Kind.COUNTER, 'Gaps that an audience was told of, by cause', 'cause'),
    ('recoveries', Kind.COUNTER, 'Who came back with a position, by what became of it', 'outcome'),
    ('history_reads', Kind.COUNTER, 'Reads of a history from Redis', None),
    ('tail_bytes', Kind.GAUGE, 'Memory of the last messages of channels with a history', None),
    ('handler_events', Kind.COUNTER, 'Events that handlers have seen', None),
    ('handler_events_waiting', Kind.GAUGE, 'Events that handlers have yet to see', None),
    ('handler_lag_seconds', Kind.GAUGE, 'How long the latest event of a handler waited', None),
    ('queued_bytes', Kind.GAUGE, 'Bytes that wait for clients', None),
    ('queued_bytes_max', Kind.GAUGE, 'Bytes that wait for the slowest client', None),
    ('queues', Kind.GAUGE, 'Clients for which something waits', None),
    ('queues_memory_bytes', Kind.GAUGE, 'Memory of what waits for clients', None),
    ('backlog_bytes', Kind.GAUGE, 'Bytes from Redis that are not handed out yet', None),
    ('unpublished_messages', Kind.GAUGE, "Clients' messages that wait for Redis", None),
    ('unpublished_bytes', Kind.GAUGE, 'Their size', None),
    ('redis_connected', Kind.GAUGE, 'Whether the connections to Redis are there', None),
    ('redis_links', Kind.GAUGE, 'Whether a connection to Redis is there', 'link'),
    ('redis_reconnects', Kind.COUNTER, 'Connections to Redis that were made anew', None),
    ('presence', Kind.GAUGE, 'Members of channels that are connected here', None),
    ('tasks', Kind.GAUGE, 'Tasks of the pool that wait or run', None),
    ('tasks_waiting', Kind.GAUGE, 'Tasks of the pool that wait', None),
    ('tasks_begun', Kind.COUNTER, 'Tasks that the pool has begun', None),
    ('tasks_waited_seconds', Kind.COUNTER, 'How long these had waited, in all', None),
)
for _name, _kind, _about, _label in _STATISTICS:
    declare(Declaration(_name, _kind, _about, _label))

FACILITY_MESSAGES: Final = counter(
    'facility_messages',
    'Messages that came from Redis, by the pattern of WS4REDIS_FACILITIES',
    label='pattern',
)

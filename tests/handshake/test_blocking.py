"""Database connections of code that runs outside Django's requests."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connections

from tests.timeouts import SOON_SECONDS
from ws4redis.handshake import blocking
from ws4redis.handshake.blocking import with_database
from ws4redis.loop.workers import Workers, is_looked_after


class Connection:
    """Stand for a connection to a database."""

    def __init__(self) -> None:
        self.connection: object | None = object()
        self.errors_occurred = False
        self.autocommit = True
        self.settings_dict = {'AUTOCOMMIT': True}
        self.closed = 0

    def get_autocommit(self) -> bool:
        return self.autocommit

    def close_if_unusable_or_obsolete(self) -> None:
        self.closed += 1
        self.errors_occurred = False
        self.autocommit = True


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    connection = Connection()
    monkeypatch.setattr(connections, 'all', lambda **options: [connection])
    monkeypatch.setattr(blocking, 'close_old_connections', connection.close_if_unusable_or_obsolete)
    return connection


def in_pool(workers: Workers, count: int, connection: Any) -> None:
    all_done = threading.Event()

    def run() -> None:
        for _ in range(count):
            with_database(lambda: None)
        all_done.set()

    workers.submit(run)
    assert all_done.wait(SOON_SECONDS)


def test_elsewhere_they_are_closed_before_and_afterwards(connection: Connection) -> None:
    assert not is_looked_after()
    assert with_database(lambda: connection.closed) == 1
    assert connection.closed == 2


def test_a_pool_keeps_them_while_there_is_something_to_do(connection: Connection) -> None:
    cared = threading.Event()
    workers = Workers(1, care=cared.set)
    in_pool(workers, 5, connection)
    assert connection.closed == 0
    # Then its care closes them.
    assert cared.wait(SOON_SECONDS)
    workers.stop()


def test_a_pool_without_care_keeps_none(connection: Connection) -> None:
    workers = Workers(1)
    in_pool(workers, 1, connection)
    assert connection.closed == 2
    workers.stop()


@pytest.mark.parametrize('fault', ['error', 'transaction'])
def test_what_a_call_has_left_broken_is_not_the_next_ones(
    connection: Connection, fault: str
) -> None:
    workers = Workers(1, care=lambda: None)
    if fault == 'error':
        connection.errors_occurred = True
    else:
        connection.autocommit = False
    in_pool(workers, 3, connection)
    assert connection.closed == 1
    workers.stop()

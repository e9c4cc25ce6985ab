"""Many websockets at once, each in a thread, against a uWSGI with threads.

Start the server on its own, for instance in `examples/`:

    uwsgi --http-socket :8000 --threads 20 --listen 1000 --module wsgi
"""

import queue
import socket
import threading
from collections.abc import Iterator

import pytest
from blocking_clients import Facility, attend, check_broadcast

STACK_BYTES = 256 * 1024


@pytest.fixture(autouse=True)
def small_stacks() -> Iterator[None]:
    """Let a thousand threads fit into memory."""
    before = threading.stack_size(STACK_BYTES)
    yield
    threading.stack_size(before)


def test_every_thread_receives_one_broadcast(facility: Facility, count: int) -> None:
    reports: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
    clients = [
        threading.Thread(target=attend, args=(socket, facility, reports.put), daemon=True)
        for _ in range(count)
    ]
    for client in clients:
        client.start()
    check_broadcast(socket, facility, reports.get, count=count)
    for client in clients:
        client.join()

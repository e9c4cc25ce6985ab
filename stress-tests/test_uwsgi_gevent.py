"""Many websockets at once, each in a greenlet, against a uWSGI with gevent.

Start the server on its own, for instance in `examples/`:

    uwsgi --http-socket :8000 --gevent 100 --listen 1000 --module wsgi
"""

import gevent
import gevent.queue
import gevent.socket
from blocking_clients import Facility, attend, check_broadcast


def test_every_greenlet_receives_one_broadcast(facility: Facility, count: int) -> None:
    reports = gevent.queue.Queue()
    clients = [
        gevent.spawn(attend, gevent.socket, facility, reports.put_nowait) for _ in range(count)
    ]
    try:
        check_broadcast(gevent.socket, facility, reports.get, count=count)
        gevent.joinall(clients, raise_error=True)
    finally:
        gevent.killall(clients)

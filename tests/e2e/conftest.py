"""Servers that are shared by all end-to-end tests of a kind, and clients that are closed."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from django.http import HttpRequest

from tests.django_requests import logged_in_request, make_user
from tests.e2e.kinds import KINDS, Server, uwsgi
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import HandshakeRefused, HttpResponse, RawWebSocket

#: A server that is being parametrised: `pytest.mark.parametrize('server', KINDS, indirect=True)`.
Connect = Callable[..., RawWebSocket]


@pytest.fixture(scope='session', params=KINDS)
def server(
    request: pytest.FixtureRequest, redis_server: RedisServer, django_db_setup: None
) -> Iterator[Server]:
    """A running server of each kind, with the project's stock settings."""
    with KINDS[request.param](redis_server, {}) as server:
        yield server


@pytest.fixture(scope='session')
def gevent_server(redis_server: RedisServer, django_db_setup: None) -> Iterator[Server]:
    """One uWSGI with gevent, for what does not depend on the server."""
    with uwsgi(redis_server, {}) as server:
        yield server


@pytest.fixture
def start(redis_server: RedisServer) -> Iterator[Callable[..., Any]]:
    """Start a server of the test's own, ``start(kind, **settings)``; it is stopped at the end."""
    with ExitStack() as stack:

        def start(kind: Callable[..., Any] = uwsgi, /, **settings: Any) -> Any:
            return stack.enter_context(kind(redis_server, settings))

        yield start


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open a websocket, ``connect(server, 'facility?options')``; it is closed at the end.

    ``request`` gives the session of a login, ``headers`` are added.
    """
    with ExitStack() as stack:

        def connect(
            server: Server,
            address: str,
            *,
            request: HttpRequest | None = None,
            headers: Mapping[str, str | None] | None = None,
            prefix: str = '/ws/',
        ) -> RawWebSocket:
            cookies = {} if request is None else {'Cookie': cookie_of(request)}
            websocket = RawWebSocket(
                f'{server.ws_url}{prefix}{address}', headers={**cookies, **(headers or {})}
            )
            return stack.enter_context(websocket)

        yield connect


def cookie_of(request: HttpRequest) -> str:
    """Return the cookie of a request's session."""
    return f'sessionid={request.session.session_key}'


@pytest.fixture
def john(transactional_db: None) -> HttpRequest:
    """A request with a login of john, who is in two groups."""
    return logged_in_request(make_user('john', groups=['chatters', 'writers']))


@pytest.fixture
def mary(transactional_db: None) -> HttpRequest:
    """A request with a login of mary, who is in one group."""
    return logged_in_request(make_user('mary', groups=['chatters']))


def refused(
    server: Server, path: str, *, method: str = 'GET', **headers: str | None
) -> HttpResponse:
    """Return the answer to a handshake that is not accepted."""
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    with RawWebSocket(server.ws_url + path, headers=names, connect=False) as websocket:
        with pytest.raises(HandshakeRefused) as caught:
            websocket.handshake(method=method)
    return caught.value.response


def post(server: Server, path: str, *, request: HttpRequest | None = None, **fields: str) -> str:
    """Send a form to a view and return its answer."""
    headers = {} if request is None else {'Cookie': cookie_of(request)}
    data = urllib.parse.urlencode(fields).encode()
    call = urllib.request.Request(server.url + path, data=data, headers=headers)
    with urllib.request.urlopen(call, timeout=SOON_SECONDS) as response:
        body: bytes = response.read()
    return body.decode()

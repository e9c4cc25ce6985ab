"""The WSGI environment of a request that the native door took: callbacks and views get one."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ws4redis.protocol.http1 import RequestHead
    from ws4redis.servers.native.trust import Client

CONNECTION = 'ws4redis.connection'
"""Under this key is the connection, which can be handed over."""

_WITHOUT_PREFIX = {'content-length': 'CONTENT_LENGTH', 'content-type': 'CONTENT_TYPE'}
_KEYS: dict[str, str] = dict(_WITHOUT_PREFIX)
# Clients choose the names, so no more of them are remembered.
_MAX_KEYS = 256


def key_of(name: str) -> str:
    """Return the key of a header, whose name is in lower case."""
    key = _KEYS.get(name)
    if key is None:
        key = 'HTTP_' + name.upper().replace('-', '_')
        if len(_KEYS) < _MAX_KEYS:
            _KEYS[name] = sys.intern(key)
    return key


def make_environ(
    head: RequestHead, client: Client, base: dict[str, Any], connection: object
) -> WSGIEnvironment:
    """Return the environment of a request, whose body has been read or is none."""
    environ: WSGIEnvironment = {
        **base,
        'REQUEST_METHOD': head.method,
        'PATH_INFO': head.path,
        'QUERY_STRING': head.query,
        'SERVER_PROTOCOL': 'HTTP/1.1' if head.version == '1.1' else 'HTTP/1.0',
        'REMOTE_ADDR': client.address,
        'wsgi.url_scheme': 'https' if client.is_secure else 'http',
        'wsgi.input': io.BytesIO(head.body or b''),
    }
    for name, value in head.headers.items():
        environ[key_of(name)] = value
    environ['CONTENT_LENGTH'] = str(len(head.body or b''))
    if client.is_secure:
        environ['HTTPS'] = 'on'
    environ[CONNECTION] = connection
    return environ


def base_environ(server_name: str, server_port: str) -> dict[str, Any]:
    """Return what is the same in all environments."""
    return {
        'SCRIPT_NAME': '',
        'SERVER_NAME': server_name or 'localhost',
        'SERVER_PORT': server_port or '80',
        'SERVER_SOFTWARE': 'ws4redis',
        'wsgi.version': (1, 0),
        'wsgi.errors': sys.stderr,
        'wsgi.multithread': True,
        'wsgi.multiprocess': True,
        'wsgi.run_once': False,
    }

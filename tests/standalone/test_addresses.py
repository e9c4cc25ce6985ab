"""Addresses to listen on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ws4redis.standalone.addresses import Address, listen, parse_address


@pytest.mark.parametrize(
    ('text', 'address'),
    [
        ('8888', Address('127.0.0.1', 8888)),
        ('0.0.0.0:80', Address('0.0.0.0', 80)),
        (':9000', Address('127.0.0.1', 9000)),
        ('localhost:9000', Address('127.0.0.1', 9000)),
        ('[::1]:9000', Address('::1', 9000)),
        ('unix:/run/ws.sock', Address('', 0, '/run/ws.sock')),
        ('unix:///run/ws.sock', Address('', 0, '/run/ws.sock')),
    ],
)
def test_an_address_is_a_port_a_host_with_a_port_or_a_path(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize('text', ['', 'localhost', '127.0.0.1:', '1.2.3.4:http', '99999', 'unix:'])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='unix:/run'):
        parse_address(text)


def test_the_url_is_what_a_client_would_write() -> None:
    assert Address('127.0.0.1', 8888).url(tls=False) == 'ws://127.0.0.1:8888/'
    assert Address('::1', 0).url(tls=True, port=9) == 'wss://[::1]:9/'
    assert Address(path='/run/ws.sock').url(tls=False) == 'unix:/run/ws.sock'


def test_a_unix_socket_that_a_dead_server_left_behind_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / 'ws.sock')
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(path)
    listen(Address(path=path)).close()


def test_a_unix_socket_in_use_and_any_other_file_stay(tmp_path: Path) -> None:
    path = tmp_path / 'ws.sock'
    with listen(Address(path=str(path))):
        with pytest.raises(OSError, match='another server listens'):
            listen(Address(path=str(path)))
    file = tmp_path / 'notes.txt'
    file.write_text('keep me')
    with pytest.raises(OSError, match='no socket'):
        listen(Address(path=str(file)))
    assert file.read_text() == 'keep me'

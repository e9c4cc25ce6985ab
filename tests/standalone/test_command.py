"""What ``run_wsserver`` and ``run_wsworker`` refuse, and how they say so."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from tests.free_ports import free_port
from tests.standalone.server import HANDLERS
from ws4redis.standalone.addresses import Address, listen

pytestmark = pytest.mark.usefixtures('handlers')


@pytest.fixture
def handlers() -> Any:
    with override_settings(DEFAULT_WS_HANDLERS=HANDLERS):
        yield


def refusal(*arguments: str, command: str = 'run_wsserver') -> str:
    with pytest.raises(CommandError) as refused:
        call_command(command, *arguments, skip_checks=True)
    return str(refused.value)


@pytest.mark.parametrize('command', ['run_wsserver', 'run_wsworker'])
@pytest.mark.parametrize('option', ['--push-socket', '--sub-socket'])
@pytest.mark.parametrize('value', ['tcp://127.0.0.1:9001', 'ipc:///tmp/ws_push'])
def test_addresses_of_zeromq_are_explained(command: str, option: str, value: str) -> None:
    message = refusal(f'{option}={value}', command=command)
    assert option in message
    assert value in message
    assert 'WS4REDIS_CONNECTION' in message
    assert 'ZeroMQ' in message


def test_names_of_queues_are_plain_and_differ() -> None:
    assert '--push-socket' in refusal('--push-socket=a b')
    assert 'must differ' in refusal('--push-socket=ws', '--sub-socket=ws')


def test_an_address_in_use_is_one_line() -> None:
    port = free_port()
    with listen(Address(port=port)):
        message = refusal(str(port))
    assert message == f'cannot listen on 127.0.0.1:{port}: Address already in use'


def test_a_path_that_is_too_long_for_a_socket_is_told() -> None:
    assert 'too long' in refusal(f'unix:/tmp/{"x" * 150}')


def test_a_certificate_that_does_not_load_is_named() -> None:
    assert '/no/such.pem' in refusal(str(free_port()), '--certfile=/no/such.pem')
    assert '--keyfile needs --certfile' in refusal('--keyfile=/no/such.pem')


def test_a_broken_regular_expression_is_named() -> None:
    assert '--websocket-url' in refusal('--websocket-url=/socket(')


def test_modes_exclude_each_other() -> None:
    assert 'not allowed with' in refusal('--threaded', '--gevent')


def test_options_that_make_no_sense_are_refused() -> None:
    assert '--workers' in refusal('--workers=0')
    assert '--multiprocess' in refusal('--handler-processes=2')
    assert '--handler-processes' in refusal('--multiprocess', '--handler-processes=-1')


def test_handlers_without_a_default_are_an_error_that_names_the_setting() -> None:
    with override_settings(DEFAULT_WS_HANDLERS={'other': HANDLERS['echo']}):
        assert 'DEFAULT_WS_HANDLERS' in refusal(str(free_port()))


def test_a_websocket_url_without_handlers_is_an_error() -> None:
    with override_settings(DEFAULT_WS_HANDLERS={}):
        assert 'DEFAULT_WS_HANDLERS' in refusal('--websocket-url=/socket')
        assert 'DEFAULT_WS_HANDLERS' in refusal(command='run_wsworker')

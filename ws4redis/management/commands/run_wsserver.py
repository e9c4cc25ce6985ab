"""``manage.py run_wsserver``: websockets without uWSGI."""

from __future__ import annotations

import os
import re
import socket
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ws4redis.conf import conf
from ws4redis.handlers.multiprocess.sealing import require_cipher
from ws4redis.handlers.routes import DEFAULT_URL, routes_from_settings
from ws4redis.settings.checks import validate_settings
from ws4redis.standalone.addresses import DEFAULT_PORT, Address, listen, parse_address
from ws4redis.standalone.options import (
    DEFAULT_PUSH_SOCKET,
    DEFAULT_SUB_SOCKET,
    GEVENT,
    MULTIPROCESS,
    THREADED,
    ProcessOptions,
)
from ws4redis.standalone.supervisor import CannotStart, Supervisor


class Command(BaseCommand):
    """Serve websockets: those under ``WEBSOCKET_URL``, and those of handlers."""

    help = (
        'Serve websockets without uWSGI: those under WEBSOCKET_URL, and those of handlers. SIGTERM '
        'or Ctrl-C stops it, SIGHUP restarts its processes without refusing a connection.'
    )
    requires_system_checks = '__all__'

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            'address',
            nargs='?',
            default=str(DEFAULT_PORT),
            metavar='[port | addr:port | unix:path]',
            help=f'where to listen (default: {DEFAULT_PORT})',
        )
        parser.add_argument(
            '--websocket-url',
            metavar='REGEX',
            help='regular expression of the paths of DEFAULT_WS_HANDLERS; its named group '
            f'"namespace" chooses among them (default: {DEFAULT_URL})',
        )
        mode = parser.add_mutually_exclusive_group()
        for name, text in (
            (THREADED, 'run handlers in a pool of threads (default)'),
            (GEVENT, 'run each handler in a greenlet; the standard library is monkey patched'),
            (MULTIPROCESS, 'run handlers in other processes; see also run_wsworker'),
        ):
            mode.add_argument(f'--{name}', action='store_const', const=name, dest='mode', help=text)
        parser.set_defaults(mode=THREADED)
        parser.add_argument(
            '--handler-processes',
            type=int,
            metavar='N',
            help='with --multiprocess: handler processes to start here (default: one per core)',
        )
        parser.add_argument('--workers', type=int, default=1, metavar='N', help='processes (1)')
        parser.add_argument('--certfile', help='certificate chain, PEM: serves wss:// alone')
        parser.add_argument('--keyfile', help='private key, PEM; may be in the certfile')
        parser.add_argument(
            '--proxy-protocol',
            action='store_true',
            help='each connection begins with a header of the PROXY protocol, version 1 or 2, from '
            'one of WS4REDIS_TRUSTED_PROXIES',
        )
        parser.add_argument(
            '--metrics',
            metavar='[port | addr:port | unix:path]',
            help='where one more process shows the metrics of all to Prometheus; beyond this '
            'machine it needs WS4REDIS_METRICS_TOKEN',
        )
        add_queue_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            programme = programme_of(options)
            addresses = addresses_of(options)
        except (ValueError, ImproperlyConfigured) as exc:
            raise CommandError(str(exc)) from None
        from ws4redis.standalone.worker import stop_seconds

        with ExitStack() as stack:
            listeners = {
                role: stack.enter_context(_listening(address))
                for role, address in addresses.items()
            }
            server = listeners['server'], addresses['server']
            url = _url_of(*server, tls=bool(options['certfile']))
            announcement = f'ws4redis serves websockets on {url}\n'
            supervisor = Supervisor(
                programme,
                listeners,
                stop_seconds=stop_seconds(),
                announce=lambda: self._announce(announcement),
            )
            try:
                supervisor.run()
            except CannotStart as exc:
                raise CommandError(str(exc)) from None

    def _announce(self, announcement: str) -> None:
        self.stdout.write(announcement)
        self.stdout.flush()


@contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    try:
        listener = listen(address)
    except OSError as exc:
        raise CommandError(f'cannot listen on {address}: {exc.strerror or exc}') from None
    try:
        yield listener
    finally:
        listener.close()
        if address.path:
            Path(address.path).unlink(missing_ok=True)


def _url_of(listener: socket.socket, address: Address, *, tls: bool) -> str:
    port = 0 if address.path else listener.getsockname()[1]
    return address.url(tls=tls, port=port)


def addresses_of(options: dict[str, Any]) -> dict[str, Address]:
    """Return where processes listen, by their role; raise ``ValueError`` for what is wrong."""
    addresses = {'server': parse_address(options['address'])}
    if options['metrics'] is None:
        return addresses
    address = parse_address(options['metrics'])
    if not conf.WS4REDIS_METRICS_TOKEN and not address.is_local:
        raise ValueError(
            f'--metrics {options["metrics"]} would show the metrics to everybody: set '
            'WS4REDIS_METRICS_TOKEN, or name a port alone, which is on 127.0.0.1'
        )
    # Without its library it would crash again and again.
    import ws4redis.dashboard.metrics  # noqa: F401

    return {**addresses, 'metrics': address}


def add_queue_arguments(parser: ArgumentParser) -> None:
    """Add the options that the websocket server and its handlers' processes must agree on."""
    parser.add_argument(
        '--push-socket',
        default=DEFAULT_PUSH_SOCKET,
        metavar='NAME',
        help='name of the keys in Redis by which events reach handlers of other processes '
        f'(default: {DEFAULT_PUSH_SOCKET})',
    )
    parser.add_argument(
        '--sub-socket',
        default=DEFAULT_SUB_SOCKET,
        metavar='NAME',
        help='name of the keys in Redis by which their answers come back '
        f'(default: {DEFAULT_SUB_SOCKET})',
    )


def queue_names(options: dict[str, Any]) -> dict[str, Any]:
    """Return the names of the two queues; raise ``ValueError`` if one is no name."""
    names = {name: str(options[name]) for name in ('push_socket', 'sub_socket')}
    for name, value in names.items():
        option = '--' + name.replace('_', '-')
        if '://' in value:
            raise ValueError(
                f'{option} {value!r} is the address of a ZeroMQ socket. Events and answers go '
                'through Redis now, to which WS4REDIS_CONNECTION leads; the option names keys '
                f'there, such as {DEFAULT_PUSH_SOCKET!r}. Leave it out, or give a plain name.'
            )
        if not re.fullmatch(r'[\w.:-]+', value):
            raise ValueError(f'{option} {value!r} is no name of a key: use letters and digits')
    if names['push_socket'] == names['sub_socket']:
        raise ValueError('--push-socket and --sub-socket must differ')
    return names


def programme_of(options: dict[str, Any]) -> list[ProcessOptions]:
    """Return the processes that the options ask for; raise ``ValueError`` for what is wrong."""
    validate_settings()
    websocket_url = _websocket_url(options['websocket_url'])
    # Loading the handlers here tells of mistakes in one line, before any process starts.
    routes_from_settings(websocket_url)
    if options['mode'] == MULTIPROCESS:
        require_cipher()
    if options['workers'] < 1:
        raise ValueError('--workers must be 1 or more')
    if options['proxy_protocol'] and not conf.WS4REDIS_TRUSTED_PROXIES:
        raise ValueError(
            '--proxy-protocol lets your proxy say who the client is: name its address in '
            'WS4REDIS_TRUSTED_PROXIES'
        )
    server = ProcessOptions(
        mode=options['mode'],
        websocket_url=websocket_url,
        proxy_protocol=options['proxy_protocol'],
        log_requests=options['verbosity'] > 1,
        **_certificate(options),
        **queue_names(options),
    )
    programme = [server] * options['workers']
    if options['metrics'] is not None:
        programme.append(ProcessOptions(role='metrics'))
    if server.mode == MULTIPROCESS:
        count = options['handler_processes']
        count = len(os.sched_getaffinity(0)) if count is None else count
        if count < 0:
            raise ValueError('--handler-processes must be 0 or more')
        programme += [
            ProcessOptions(role='handlers', websocket_url=websocket_url, **queue_names(options))
        ] * count
    elif options['handler_processes'] is not None:
        raise ValueError('--handler-processes goes with --multiprocess')
    return programme


def _websocket_url(regex: str | None) -> str:
    if regex is None:
        return DEFAULT_URL
    if not conf.DEFAULT_WS_HANDLERS:
        raise ValueError('--websocket-url is for DEFAULT_WS_HANDLERS, which is not set')
    try:
        re.compile(regex)
    except re.error as exc:
        raise ValueError(f'--websocket-url {regex!r} is no regular expression: {exc}') from None
    return regex


def _certificate(options: dict[str, Any]) -> dict[str, Any]:
    certfile, keyfile = options['certfile'], options['keyfile']
    if keyfile and not certfile:
        raise ValueError('--keyfile needs --certfile')
    if certfile:
        from ws4redis.servers.native.tls import make_context

        try:
            make_context(certfile, keyfile)
        except OSError as exc:
            raise ValueError(f'cannot use {certfile}: {exc}') from None
    return {'certfile': certfile, 'keyfile': keyfile}

"""Whether a configuration file of uWSGI has what websockets need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ws4redis.doctor.findings import Finding, error, good, note, warning
from ws4redis.servers.uwsgi_options import concerns_about, is_on

SUBJECT = 'uWSGI'
# uWSGI's default holds the headers of a request; a browser's cookies may not fit.
SMALLEST_BUFFER_BYTES = 8192


def read_options(path: Path) -> dict[str, str]:
    """Return the options of the section ``[uwsgi]`` of an ini file.

    uWSGI permits an option several times, and options without a value, which configparser refuses;
    the last value counts. Raise ``OSError`` for a file that cannot be read.
    """
    options: dict[str, str] = {}
    is_ours = True
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        line = line.strip()
        if line.startswith('['):
            is_ours = line.startswith('[uwsgi]')
        elif line and line[0] not in ';#' and is_ours:
            name, _, value = line.partition('=')
            options[name.strip().replace('_', '-')] = value.strip()
    return options


def examine_uwsgi(path: Path) -> Iterator[Finding]:
    """Yield findings about one ini file of uWSGI."""
    try:
        options = read_options(path)
    except OSError as exc:
        yield error(SUBJECT, f'{path} cannot be read: {exc}', 'Name an ini file of uWSGI.')
        return
    for name in ('gevent', 'threads'):
        if is_on(options, name):
            yield good(SUBJECT, f'{path}: {name} = {options[name]}')
    for concern in concerns_about(options):
        verdict = error if concern.is_fatal else warning
        yield verdict(SUBJECT, f'{path}: {concern.text}', concern.remedy)
    yield _buffer(path, options)
    if 'die-on-term' not in options and 'hook-master-start' not in options:
        yield note(
            SUBJECT,
            f'{path}: SIGTERM means reload, not stop',
            'Add die-on-term = true under systemd, or a process supervisor.',
        )
    if is_on(options, 'harakiri'):
        yield note(
            SUBJECT,
            f'{path}: harakiri kills the worker, with all its websockets, when one view holds its '
            f'websocket for more than {options["harakiri"]} seconds',
            'Leave harakiri off where views use websockets.',
        )


def _buffer(path: Path, options: dict[str, str]) -> Finding:
    size = options.get('buffer-size', '4096')
    if size.isdigit() and int(size) < SMALLEST_BUFFER_BYTES:
        return warning(
            SUBJECT,
            f'{path}: buffer-size is {size} bytes; a handshake with more headers is dropped',
            'Set buffer-size = 32768.',
        )
    return good(SUBJECT, f'{path}: buffer-size = {size}')

"""Nobody outside can write a line of the log."""

from __future__ import annotations

import logging
import re

import pytest

from tests.server_process import ROOT
from ws4redis.log_filter import LOGGERS, ControlCharacterFilter, escape_what_is_logged

FORGED = 'x\n2026-01-01 CRITICAL forged\x1b[31m\r\x85\u2028'
SHOWN = r'x\n2026-01-01 CRITICAL forged\x1b[31m\r\x85\u2028'


@pytest.mark.parametrize('name', LOGGERS)
def test_control_characters_in_what_is_logged_are_escaped(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(name)
    with caplog.at_level(logging.DEBUG, logger=name):
        logger.warning('a path: %s', FORGED)
        logger.warning('an error: %s after %d of %g', ValueError(FORGED), 3, 0.5)
        logger.warning('quoted: %r', FORGED)
        logger.warning(FORGED)
    assert [record.getMessage() for record in caplog.records] == [
        f'a path: {SHOWN}',
        f'an error: {SHOWN} after 3 of 0.5',
        f"quoted: '{SHOWN}'",
        SHOWN,
    ]
    # What groups lines by their text still can.
    assert caplog.records[0].msg == 'a path: %s'


def test_every_logger_of_the_package_is_filtered_once() -> None:
    names = {
        name
        for path in (ROOT / 'ws4redis').rglob('*.py')
        for name in re.findall(r"getLogger\('(.*?)'\)", path.read_text(encoding='utf-8'))
    }
    assert names == set(LOGGERS)
    escape_what_is_logged()
    for name in LOGGERS:
        filters = logging.getLogger(name).filters
        assert sum(isinstance(f, ControlCharacterFilter) for f in filters) == 1

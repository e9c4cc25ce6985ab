"""What keeps clients from writing lines of their own into the log.

Paths, origins and reasons come from outside. A line feed in one of them would begin a line that
looks like any other, and escape sequences change what a terminal shows. So all loggers of the
package escape control characters in what they are given, whichever line it goes into.
"""

from __future__ import annotations

import logging
import re
from typing import Any

#: All loggers of the package: a logger's filters do not apply to those below it.
LOGGERS = ('ws4redis', 'ws4redis.protocol', 'ws4redis.requests')

# C0 and C1 control characters, and the two separators that Python and Unicode end lines at.
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')


def escape_control_characters(text: str) -> str:
    """Return ``text`` with control characters written as in Python's source."""
    return _CONTROL.sub(lambda match: match[0].encode('unicode_escape').decode(), text)


class _Shown:
    """Stand for an argument of a log line; written, it has no control characters."""

    __slots__ = ('_value',)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return escape_control_characters(str(self._value))

    def __repr__(self) -> str:
        return escape_control_characters(repr(self._value))


class ControlCharacterFilter(logging.Filter):
    """Escape control characters in the arguments of a record, and in a text without any."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, escaped."""
        if isinstance(record.args, tuple) and record.args:
            record.args = tuple(map(_shown, record.args))
        elif not record.args:
            record.msg = escape_control_characters(str(record.msg))
        return True


def _shown(argument: Any) -> Any:
    return argument if isinstance(argument, int | float) else _Shown(argument)


def escape_what_is_logged() -> None:
    """Let all loggers of the package escape control characters; a second call does nothing."""
    for named in map(logging.getLogger, LOGGERS):
        if not any(isinstance(f, ControlCharacterFilter) for f in named.filters):
            named.addFilter(ControlCharacterFilter())

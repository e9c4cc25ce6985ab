"""The properties of facilities: the setting ``WS4REDIS_FACILITIES``.

It maps patterns of facilities to options. In a pattern ``*`` matches any run of characters, slashes
included; the first pattern that matches counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from reprlib import repr as short_repr
from typing import Any, Final, TypeAlias

from ws4redis.settings import judges
from ws4redis.settings.hooks import complaint_of, load_callback
from ws4redis.settings.setting import Judge

GRANTS: Final = ('anyone', 'authenticated', 'staff', 'nobody', 'token')

Grant: TypeAlias = 'str | Callable[..., Any]'
Facilities: TypeAlias = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class FacilityOptions:
    """What a facility has.

    ``keep`` is the number of seconds for which the latest message is kept for newcomers, None: as
    ``WS4REDIS_EXPIRE`` says. ``subscribe`` and ``publish`` say who may, None: whoever
    ``WS4REDIS_ALLOWED_CHANNELS`` lets. ``pattern`` is the one that the facility matches, empty
    where none does.
    """

    history_size: int = 0
    history_seconds: int = 300
    keep: int | None = None
    presence: bool = False
    subscribe: Grant | None = None
    publish: Grant | None = None
    pattern: str = field(default='', compare=False)

    @property
    def has_history(self) -> bool:
        return self.history_size > 0


DEFAULT_OPTIONS: Final = FacilityOptions()


def is_grant(value: object) -> bool:
    return value in GRANTS or callable(value) or (isinstance(value, str) and '.' in value)


_OPTIONS: Final[Mapping[str, Judge]] = {
    'HISTORY_SIZE': judges.must_be(
        'a whole number, 0 or more',
        lambda value: judges.is_whole_number(value) and value >= 0,
    ),
    'HISTORY_SECONDS': judges.must_be(
        'a positive whole number of seconds', judges.is_positive_whole
    ),
    'KEEP': judges.must_be(
        'a whole number of seconds, 0 or more, or None',
        judges.or_none(lambda value: judges.is_whole_number(value) and value >= 0),
    ),
    'PRESENCE': judges.must_be('True or False', lambda value: isinstance(value, bool)),
    'SUBSCRIBE': judges.must_be(f'one of {", ".join(GRANTS)}, or a callable', is_grant),
    'PUBLISH': judges.must_be(f'one of {", ".join(GRANTS)}, or a callable', is_grant),
}


def judge_facilities(value: Any) -> str | None:
    """Return what is wrong with the setting, or None."""
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {short_repr(value)}'
    earlier: list[str] = []
    for pattern, options in value.items():
        if not isinstance(pattern, str):
            return f'has the key {short_repr(pattern)}, which is no string'
        hiding = next((other for other in earlier if matches(other, pattern)), None)
        if hiding is not None:
            return f'has the pattern {pattern!r} behind {hiding!r}, so it can never match'
        if (complaint := _complaint_of_options(pattern, options)) is not None:
            return f'for {pattern!r} {complaint}'
        earlier.append(pattern)
    return None


def _complaint_of_options(pattern: str, options: Any) -> str | None:
    if not isinstance(options, Mapping):
        return f'must hold a dictionary of options, not {short_repr(options)}'
    for name, value in options.items():
        judge = _OPTIONS.get(name)
        if judge is None:
            return f'has the option {short_repr(name)}; there are {", ".join(_OPTIONS)}'
        complaint = judge(value)
        if complaint is None and name in ('SUBSCRIBE', 'PUBLISH') and value not in GRANTS:
            complaint = complaint_of(load_callback, name, value, 3)
        if complaint is not None:
            return f'has {name}, which {complaint}'
    return None


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile('.*'.join(map(re.escape, pattern.split('*'))), re.DOTALL)


def matches(pattern: str, facility: str) -> bool:
    """Tell whether a pattern matches a facility; only ``*`` has a meaning in it."""
    return _expression(pattern).fullmatch(facility) is not None


class FacilityTable:
    """Find the options of a facility; made once for each value of the setting."""

    def __init__(self, facilities: Facilities) -> None:
        self._options = [
            FacilityOptions(
                **{name.lower(): value for name, value in options.items()}, pattern=pattern
            )
            for pattern, options in facilities.items()
        ]
        # Names of facilities are the clients' choice, so not all of them are remembered.
        self._find = lru_cache(maxsize=4096)(self._find_uncached)

    def options_of(self, facility: str) -> FacilityOptions:
        return self._find(facility)

    def _find_uncached(self, facility: str) -> FacilityOptions:
        for options in self._options:
            if matches(options.pattern, facility):
                return options
        return DEFAULT_OPTIONS


class _Table:
    made_from: object = None
    table = FacilityTable({})


def table_of(value: Facilities) -> FacilityTable:
    """Return the table of a setting's value; the same object as long as the value is the same."""
    if value is not _Table.made_from:
        _Table.table = FacilityTable(value)
        _Table.made_from = value
    return _Table.table

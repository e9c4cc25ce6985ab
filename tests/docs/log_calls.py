"""What the package logs, found in its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.server_process import ROOT

LEVELS = {
    'debug': 'DEBUG',
    'info': 'INFO',
    'warning': 'WARNING',
    'error': 'ERROR',
    'exception': 'ERROR',
    'critical': 'CRITICAL',
}
# Methods that log what they are given, at their level.
COMPLAINING = {'_complain': 'ERROR'}

_PLACEHOLDER = re.compile(r'%[-+ #0]*\d*(?:\.\d+)?[a-z]')


@dataclass(frozen=True)
class LogCall:
    """One place that logs: ``text`` has an ellipsis for whatever differs from line to line."""

    path: str
    line: int
    level: str
    text: str


@cache
def log_calls(package: Path = ROOT / 'ws4redis') -> tuple[LogCall, ...]:
    """Return all places in a package that log."""
    return tuple(_log_calls(package))


def _log_calls(package: Path) -> Iterator[LogCall]:
    for path in sorted(package.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                level = _level_of(node.func)
                if level is not None:
                    name = str(path.relative_to(package))
                    yield LogCall(name, node.lineno, level, _text_of(node.args[0]))


def _level_of(function: ast.Attribute) -> str | None:
    if isinstance(function.value, ast.Name) and function.value.id == 'logger':
        return LEVELS[function.attr]
    return COMPLAINING.get(function.attr)


def _text_of(message: ast.expr) -> str:
    if isinstance(message, ast.Constant):
        return _PLACEHOLDER.sub('…', str(message.value))
    if isinstance(message, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else '…' for p in message.values)
        return ''.join(map(str, parts))
    return '…'

"""What the doctor finds: one thing each, with its remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How grave a finding is."""

    GOOD = 'ok'
    NOTE = 'note'
    WARNING = 'warning'
    ERROR = 'error'


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    ``subject`` names it, ``text`` says what was found, ``remedy`` what to do about it. ``details``
    are the figures behind it, for ``--json``.
    """

    verdict: Verdict
    subject: str
    text: str
    remedy: str = ''
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def good(subject: str, text: str, **details: Any) -> Finding:
    return Finding(Verdict.GOOD, subject, text, '', details)


def note(subject: str, text: str, remedy: str = '', **details: Any) -> Finding:
    return Finding(Verdict.NOTE, subject, text, remedy, details)


def warning(subject: str, text: str, remedy: str, **details: Any) -> Finding:
    return Finding(Verdict.WARNING, subject, text, remedy, details)


def error(subject: str, text: str, remedy: str, **details: Any) -> Finding:
    return Finding(Verdict.ERROR, subject, text, remedy, details)

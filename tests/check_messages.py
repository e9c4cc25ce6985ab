"""What the tests of the checks share: the ids that there are, and a callback that passes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from django.core.checks import CheckMessage

from ws4redis.settings import checks, clients, declared, deployment_checks, project_checks


def ids(messages: Iterable[CheckMessage]) -> list[str]:
    return [str(message.id) for message in messages]


def allowed_channels(request: object, channels: list[str]) -> list[str]:
    """Stand for a project's callback."""
    return channels


def source_ids() -> set[str]:
    modules = (checks, clients, declared, deployment_checks, project_checks)
    sources = [Path(str(module.__file__)).read_text() for module in modules]
    return set(re.findall(r"'ws4redis\.([EW]\d+)'", ''.join(sources)))

"""The settings of ws4redis, under their names: ``from ws4redis.settings import WS4REDIS_PREFIX``.

Each access reads the project's settings, so an imported value is that of the moment of its import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ws4redis.settings.declared import SETTINGS, conf

if not TYPE_CHECKING:
    # For `from ws4redis.settings import *`.
    __all__ = [*SETTINGS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in SETTINGS:
        return getattr(conf, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted(SETTINGS)

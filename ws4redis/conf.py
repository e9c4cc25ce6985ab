"""The settings as the package itself reads them: ``conf.WS4REDIS_EXPIRE``."""

from __future__ import annotations

from ws4redis.settings.declared import Conf, conf
from ws4redis.settings.hooks import load

__all__ = ['Conf', 'conf', 'load']

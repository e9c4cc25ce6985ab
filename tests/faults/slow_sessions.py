"""A session engine that takes long to load a session."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.contrib.sessions.backends.db import SessionStore as DatabaseStore

from tests.timeouts import scaled

SLOW_SECONDS = scaled(2)
logger = logging.getLogger('ws4redis')


class SessionStore(DatabaseStore):
    """Load sessions slowly."""

    def load(self) -> dict[str, Any]:
        """Load the session, at last."""
        logger.info('slow callback began')
        time.sleep(SLOW_SECONDS)
        return super().load()

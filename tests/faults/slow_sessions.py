"""A session engine that takes two seconds to load a session."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.contrib.sessions.backends.db import SessionStore as DatabaseStore

logger = logging.getLogger('ws4redis')


class SessionStore(DatabaseStore):
    """Load sessions slowly."""

    def load(self) -> dict[str, Any]:
        """Load the session, at last."""
        logger.info('slow callback began')
        time.sleep(2)
        return super().load()

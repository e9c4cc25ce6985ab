"""Public names: read who is there."""

from __future__ import annotations

from ws4redis.broker.presence import Member
from ws4redis.publishing.presence import Presence, acounts, counts

__all__ = ['Member', 'Presence', 'acounts', 'counts']

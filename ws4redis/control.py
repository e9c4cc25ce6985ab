"""End what was granted to open connections, from anywhere in a project."""

from __future__ import annotations

from ws4redis.publishing.control import adisconnect, aunsubscribe, disconnect, unsubscribe

__all__ = ['adisconnect', 'aunsubscribe', 'disconnect', 'unsubscribe']

"""Tokens for clients that have no cookies, or that are to be granted more than others."""

from __future__ import annotations

from ws4redis.handshake.token_view import connection_token_view
from ws4redis.publishing.tokens import connection_token, subscription_token

__all__ = ['connection_token', 'connection_token_view', 'subscription_token']

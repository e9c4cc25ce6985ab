"""Callbacks that projects might write; which one acts is told by the facility or a header."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest


def allowed_channels(request: HttpRequest, channels: list[str]) -> Iterable[str]:
    """Restrict channels as the facility's name says."""
    facility = request.path_info.rpartition('/')[2]
    if facility == 'members' and not request.user.is_authenticated:
        raise PermissionDenied('the secret reason')
    if facility == 'broken':
        raise RuntimeError('the secret of allowed_channels')
    if facility == 'listen-only':
        return (channel for channel in channels if channel.startswith('subscribe'))
    if facility == 'other':
        return ['subscribe-broadcast']
    return channels


def process_request(request: HttpRequest) -> None:
    """Know users by a token."""
    token = request.headers.get('X-Token', '')
    if token == 'broken':
        raise RuntimeError('the secret of process_request')
    if token == 'expired':
        raise PermissionDenied
    name = token.removeprefix('token of ')
    request.user = User(username=name) if name else AnonymousUser()

"""Who may look: users with the permission, and Prometheus with its token. The door fails closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.crypto import constant_time_compare

from ws4redis.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest

VIEW = 'ws4redis.view_live'
CHANGE = 'ws4redis.change_live'


def may_view(request: HttpRequest) -> bool:
    """Tell whether the user of a request may see what goes on: active staff, permitted to."""
    return _is_permitted(request, VIEW)


def may_act(request: HttpRequest) -> bool:
    """Tell whether the user of a request may send test messages as well."""
    return may_view(request) and _is_permitted(request, CHANGE)


def _is_permitted(request: HttpRequest, permission: str) -> bool:
    user = getattr(request, 'user', None)
    return (
        user is not None
        and bool(getattr(user, 'is_active', False))
        and bool(getattr(user, 'is_staff', False))
        and bool(user.has_perm(permission))
    )


def has_token(request: HttpRequest) -> bool:
    """Tell whether a request bears the token of the settings."""
    return is_token(request.headers.get('Authorization', ''))


def is_token(authorization: str) -> bool:
    """Tell whether a header bears the token of the settings; without one, none does."""
    token = conf.WS4REDIS_METRICS_TOKEN
    kind, _, given = authorization.partition(' ')
    return bool(token) and kind.lower() == 'bearer' and constant_time_compare(given, token or '')

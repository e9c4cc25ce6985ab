"""Template tags: ``{% load ws4redis %}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template

from ws4redis.publishing.history import get_position
from ws4redis.publishing.store import SELF

if TYPE_CHECKING:
    from django.template.context import RequestContext

register = template.Library()


@register.simple_tag(takes_context=True)
def websocket_position(context: RequestContext, facility: str, *audiences: str) -> str:
    """Return the newest position on a facility's channels, for ``since`` in the page.

    The audiences are ``broadcast``, ``user``, ``group`` and ``session``, those of the request;
    without any it is the broadcast. The tag is rendered after the view's queries, unless these are
    lazy: in doubt call ``get_position()`` in the view, before them.
    """
    chosen = set(audiences or ('broadcast',))
    if unknown := chosen - _OPTIONS.keys():
        raise template.TemplateSyntaxError(
            f'websocket_position knows {", ".join(_OPTIONS)}, not {", ".join(sorted(unknown))}'
        )
    options: dict[str, Any] = dict(_OPTIONS[audience] for audience in chosen)
    return get_position(facility, request=context.get('request'), **options)


_OPTIONS: dict[str, tuple[str, Any]] = {
    'broadcast': ('broadcast', True),
    'user': ('users', [SELF]),
    'group': ('groups', [SELF]),
    'session': ('sessions', [SELF]),
}

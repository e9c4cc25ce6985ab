"""Template tags: ``{% load ws4redis %}``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from ws4redis.conf import conf
from ws4redis.context_processors import websocket_uri
from ws4redis.handshake.token_view import token_for
from ws4redis.live.models import live_id
from ws4redis.publishing.history import get_position
from ws4redis.publishing.identity import user_of
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


@register.simple_tag(takes_context=True)
def websocket_token(context: RequestContext) -> str:
    """Return a token for the user of the request; empty where nobody is logged in."""
    request = context.get('request')
    return '' if request is None or user_of(request) is None else token_for(request)


register.filter('live_id', live_id)


@register.simple_tag(takes_context=True)
def ws4redis_elements(context: RequestContext) -> SafeString:
    """Write the tags of ``ws4redis.js`` and of the elements, with their style sheet."""
    request = context.get('request')
    if request is None:
        raise template.TemplateSyntaxError(
            'ws4redis_elements needs the request; render the template with render(request, …)'
        )
    return format_html(
        '<link rel="stylesheet" href="{}"><script src="{}"></script>'
        '<script src="{}" data-uri="{}" data-heartbeat="{}" data-words="{}"></script>',
        static('css/ws4redis-elements.css'),
        static('js/ws4redis.js'),
        static('js/ws4redis-elements.js'),
        websocket_uri(request),
        json.dumps(conf.WS4REDIS_HEARTBEAT),
        json.dumps(_words()),
    )


def _words() -> dict[str, str]:
    """Return the words of the elements in the language of the request."""
    return {
        'done': gettext('Done'),
        'failed': gettext('Failed'),
        'stopped': gettext('Stopped'),
        'waiting': gettext('Waiting'),
        'close': gettext('Close'),
        'left': gettext('left'),
        'silent': gettext('no news for'),
        'lost': gettext('No connection'),
        'unreadable': gettext('Unreadable message'),
        'unread': gettext('unread'),
    }


_OPTIONS: dict[str, tuple[str, Any]] = {
    'broadcast': ('broadcast', True),
    'user': ('users', [SELF]),
    'group': ('groups', [SELF]),
    'session': ('sessions', [SELF]),
}

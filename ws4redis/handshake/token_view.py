"""The view from which pages and apps get their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from ws4redis.publishing.identity import user_of
from ws4redis.publishing.tokens import connection_token

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase


@never_cache
@require_http_methods(['GET', 'POST'])
def connection_token_view(request: HttpRequest) -> HttpResponseBase:
    """Answer with a token for the user of the request, as clients' ``getToken`` wants it.

    The body is ``{"token": …}``. Somebody who is not logged in gets 403, by which clients know
    that they need not ask again.
    """
    user = user_of(request)
    if user is None:
        return JsonResponse({'error': 'Nobody is logged in.'}, status=403)
    return JsonResponse({'token': token_for(request)})


def token_for(request: HttpRequest) -> str:
    """Return a token for the user of a request, which ends with the session."""
    return connection_token(user_of(request), session=getattr(request, 'session', None))

"""A strict Content-Security-Policy, under which all pages of the example work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

# `connect-src 'self'` lets websockets to this host through.
POLICY = '; '.join(
    (
        "default-src 'none'",
        "base-uri 'none'",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "img-src 'self' data:",
        "script-src 'self'",
        "style-src 'self'",
    )
)


class ContentSecurityPolicyMiddleware:
    """Send the policy with each response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # Django's debug pages have inline styles and scripts.
        if not (settings.DEBUG and response.status_code in {404, 500}):
            response.headers.setdefault('Content-Security-Policy', POLICY)
        return response

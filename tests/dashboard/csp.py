"""A strict Content-Security-Policy for every page."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


def strict(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response['Content-Security-Policy'] = "default-src 'self'; img-src 'self' data:"
        return response

    return middleware

"""The views of the tests' own site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.urls import path

if TYPE_CHECKING:
    from django.urls import URLPattern


def hello(request: HttpRequest) -> HttpResponse:
    """Show that Django serves."""
    return HttpResponse('hello from Django', content_type='text/plain')


def users(request: HttpRequest) -> HttpResponse:
    """Show who is in the database."""
    names = get_user_model().objects.order_by('pk').values_list('username', flat=True)
    return HttpResponse('\n'.join(names), content_type='text/plain')


urlpatterns: list[URLPattern] = [path('hello/', hello), path('users/', users)]

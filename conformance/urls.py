"""No views: the echo servers answer websockets only."""

from __future__ import annotations

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []

"""Two pages whose websockets talk to handlers."""

from __future__ import annotations

from typing import Any

from django.views.generic import TemplateView

from livepages.presence import FACILITY


class Counter(TemplateView):
    """Show a counter that a handler counts."""

    template_name = 'livepages/counter.html'


class Visitors(TemplateView):
    """Show who has this page open."""

    template_name = 'livepages/visitors.html'

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(facility=FACILITY, **kwargs)

"""Fragments of HTML that change a page where it is open.

A message is one ``<turbo-stream>`` element: what Hotwire's Turbo takes from a websocket, and what
``<ws4redis-html>`` understands as well. The contents are rendered once and go to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from ws4redis.live.audience import To, publisher_to
from ws4redis.publishing.publisher import PublishOptions

if TYPE_CHECKING:
    from ws4redis.publishing.broker import Positions

Template = str | Sequence[str]
Context = Mapping[str, Any] | None


class Fragments:
    """Change parts of the pages that show a facility.

    The audience is given as to ``RedisPublisher``; without one it is everybody who subscribes.
    ``request`` is for context processors of the template. A target is the ``id`` of an element; in
    ``<ws4redis-html>`` that without a target is the element itself.

    Nothing is kept for those who come later, since a page that was rendered later has it already.
    The other options are those of ``RedisPublisher.publish_message``.
    """

    def __init__(self, facility: str, **audience: Unpack[To]) -> None:
        self._publisher = publisher_to(facility, audience)
        self._request = audience.get('request')

    def append(
        self,
        target: str,
        template: Template,
        context: Context = None,
        **options: Unpack[PublishOptions],
    ) -> Positions:
        """Add a rendered template as the last child of the target.

        A child with the same ``id`` is replaced, so that nothing is there twice.
        """
        return self._change('append', target, template, context, options)

    def prepend(
        self,
        target: str,
        template: Template,
        context: Context = None,
        **options: Unpack[PublishOptions],
    ) -> Positions:
        """Add a rendered template as the first child of the target."""
        return self._change('prepend', target, template, context, options)

    def replace(
        self,
        target: str,
        template: Template,
        context: Context = None,
        **options: Unpack[PublishOptions],
    ) -> Positions:
        """Put a rendered template in the place of the target."""
        return self._change('replace', target, template, context, options)

    def update(
        self,
        target: str,
        template: Template,
        context: Context = None,
        **options: Unpack[PublishOptions],
    ) -> Positions:
        """Put a rendered template into the target."""
        return self._change('update', target, template, context, options)

    def remove(self, target: str, **options: Unpack[PublishOptions]) -> Positions:
        """Remove the target."""
        return self._publish(turbo_stream('remove', target), options)

    def _change(
        self,
        action: str,
        target: str,
        template: Template,
        context: Context,
        options: PublishOptions,
    ) -> Positions:
        values = None if context is None else dict(context)
        html = render_to_string(template, values, self._request)
        return self._publish(turbo_stream(action, target, html), options)

    def _publish(self, stream: str, options: PublishOptions) -> Positions:
        return self._publisher.publish_message(stream, expire=0, **options)


def turbo_stream(action: str, target: Any, html: str = '') -> SafeString:
    """Return the element that tells browsers to do something to a target."""
    if not isinstance(target, str) or not target:
        raise ValueError(f'target must be the id of an element, not {target!r}')
    # `html` is a rendered template, in which Django has escaped what has to be.
    content = mark_safe(f'<template>{html}</template>') if html else ''  # noqa: S308
    return format_html(
        '<turbo-stream action="{}" target="{}">{}</turbo-stream>', action, target, content
    )

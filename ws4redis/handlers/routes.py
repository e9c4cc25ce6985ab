"""Which handler serves which path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from django.core.exceptions import ImproperlyConfigured

from ws4redis.conf import conf, load
from ws4redis.handlers.handler import DEFAULT_NAMESPACE, WebSocketHandler
from ws4redis.handlers.session import takes_close_code

DEFAULT_URL = '/socket'
"""Where the handlers of ``DEFAULT_WS_HANDLERS`` are, unless ``--websocket-url`` says otherwise."""


class UnknownNamespace(Exception):
    """Tell that a path is one of ours, but its namespace has no handler."""


@dataclass(frozen=True, slots=True)
class Match:
    """The handler of a path, and the named groups of its regular expression."""

    handler_class: type[WebSocketHandler]
    kwargs: dict[str, str]


class Route:
    """One regular expression, and its handlers by namespace."""

    def __init__(self, regex: str, handlers: Mapping[str, type[WebSocketHandler]]) -> None:
        self._pattern = re.compile(regex)
        self._handlers = handlers

    @property
    def regex(self) -> str:
        return self._pattern.pattern

    def handler_classes(self) -> Iterable[type[WebSocketHandler]]:
        return self._handlers.values()

    def match(self, path: str) -> Match | None:
        """Return who serves a path, None if it is not ours.

        The regular expression has to match the whole path, but for a slash at its end. Raise
        ``UnknownNamespace`` if there is no handler for the namespace.
        """
        found = self._pattern.fullmatch(path) or self._pattern.fullmatch(path.removesuffix('/'))
        if found is None:
            return None
        kwargs = {name: value for name, value in found.groupdict().items() if value is not None}
        # "/socket/(?P<namespace>\w*)" lets an empty one through.
        namespace = kwargs.get('namespace') or DEFAULT_NAMESPACE
        if len(self._handlers) == 1 and None in self._handlers:
            return Match(self._handlers[None], kwargs)  # type: ignore[index]
        if namespace not in self._handlers:
            raise UnknownNamespace(namespace)
        return Match(self._handlers[namespace], kwargs)


class HandlerRoutes:
    """The routes of the settings, in their order."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def __bool__(self) -> bool:
        return bool(self._routes)

    def match(self, path: str) -> Match | None:
        """Return who serves a path: the first route that matches. Raise ``UnknownNamespace``."""
        for route in self._routes:
            match = route.match(path)
            if match is not None:
                return match
        return None

    def handler_classes(self) -> set[type[WebSocketHandler]]:
        """Return all handlers there are."""
        return {cls for route in self._routes for cls in route.handler_classes()}

    def serves(self, path: str) -> bool:
        """Tell whether a path belongs to a handler, or would if its namespace were known."""
        try:
            return self.match(path) is not None
        except UnknownNamespace:
            return True


@cache
def routes_from_settings(default_url: str = DEFAULT_URL) -> HandlerRoutes:
    """Return the routes of ``WS4REDIS_HANDLERS``, then that of ``DEFAULT_WS_HANDLERS``.

    ``default_url`` is the regular expression of the latter. Raise ``ImproperlyConfigured``, naming
    the setting, where one does not lead to a handler. The same routes are returned until one of
    the two settings is changed, by a test.
    """
    routes = [
        Route(regex, _handlers_of(f'WS4REDIS_HANDLERS[{regex!r}]', value))
        for regex, value in conf.WS4REDIS_HANDLERS.items()
    ]
    namespaces = conf.DEFAULT_WS_HANDLERS
    if namespaces:
        routes.append(Route(default_url, _by_namespace('DEFAULT_WS_HANDLERS', namespaces)))
    return HandlerRoutes(routes)


def _handlers_of(name: str, value: Any) -> Mapping[Any, type[WebSocketHandler]]:
    if isinstance(value, Mapping):
        return _by_namespace(name, value)
    # One handler takes all that the regular expression lets through, whatever its namespace.
    return {None: load_handler(name, value)}


def _by_namespace(name: str, handlers: Mapping[str, Any]) -> dict[str, type[WebSocketHandler]]:
    if DEFAULT_NAMESPACE not in handlers:
        raise ImproperlyConfigured(f'{name} has no {DEFAULT_NAMESPACE!r}.')
    return {
        namespace: load_handler(f'{name}[{namespace!r}]', value)
        for namespace, value in handlers.items()
    }


def load_handler(name: str, value: Any) -> type[WebSocketHandler]:
    """Return the handler class that a setting holds or names by its dotted path.

    ``name`` is that of the setting, for the error. Raise ``ImproperlyConfigured``.
    """
    handler_class: Any = load(name, value)
    is_handler = isinstance(handler_class, type) and issubclass(handler_class, WebSocketHandler)
    if not is_handler:
        raise ImproperlyConfigured(
            f'{name} must name a subclass of ws4redis.handlers.WebSocketHandler, not {value!r}.'
        )
    # Inspected once, now, rather than when the first websocket closes.
    takes_close_code(handler_class)
    return cast('type[WebSocketHandler]', handler_class)

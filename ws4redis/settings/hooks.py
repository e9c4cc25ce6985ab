"""What a project plugs in by a setting: how it is loaded, and what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from reprlib import repr as short_repr
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ws4redis.settings.setting import Judge

SUBSCRIBER_METHODS = (
    'set_pubsub_channels',
    'get_file_descriptor',
    'parse_response',
    'publish_message',
    'release',
)
HANDLER_METHODS = ('on_open', 'on_message', 'on_close')


def load(name: str, value: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the callable that a setting holds or names by its dotted path.

    ``name`` is the setting's name, for the error; ``value`` a callable, or a dotted path like
    ``'project.sockets.allowed_channels'``. Raise ``ImproperlyConfigured`` when the path does not
    import, or leads to something that cannot be called.
    """
    loaded = value
    if isinstance(value, str):
        try:
            loaded = import_string(value)
        except Exception as exc:
            # Not only ImportError: the named module runs here, and may fail in any way.
            raise ImproperlyConfigured(
                f'{name} names {value!r}, which does not import: {type(exc).__name__}: {exc}'
            ) from exc
    if not callable(loaded):
        raise ImproperlyConfigured(
            f'{name} must be a callable or the dotted path of one, not {value!r}.'
        )
    return loaded


def judge_callable(name: str) -> Judge:
    """Return a judge of a setting that holds a callable, its dotted path, or None."""

    def judge(value: Any) -> str | None:
        return None if value is None else complaint_of_loading(name, value)

    return judge


def complaint_of_loading(name: str, value: Any) -> str | None:
    try:
        load(name, value)
    except ImproperlyConfigured as exc:
        return str(exc).removeprefix(name).strip().rstrip('.')
    return None


def judge_subscriber(value: Any) -> str | None:
    complaint = complaint_of_loading('WS4REDIS_SUBSCRIBER', value)
    if complaint is not None:
        return complaint
    subscriber = load('WS4REDIS_SUBSCRIBER', value)
    if not isinstance(subscriber, type):
        return f'must name a class, not {short_repr(subscriber)}'
    missing = missing_methods(subscriber, SUBSCRIBER_METHODS)
    if not any(hasattr(subscriber, f'send_{word}_messages') for word in ('persisted', 'persited')):
        missing.append('send_persisted_messages')
    return f'names a class that lacks {", ".join(missing)}' if missing else None


def missing_methods(cls: type[Any], methods: Iterable[str]) -> list[str]:
    return [method for method in methods if not callable(getattr(cls, method, None))]


def judge_handlers(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {short_repr(value)}'
    for regex, handler in value.items():
        try:
            re.compile(regex)
        except (re.error, TypeError) as exc:
            return f'has the key {short_repr(regex)}, which is no regular expression: {exc}'
        name = f'WS4REDIS_HANDLERS[{regex!r}]'
        # A regular expression with a group `namespace` may lead to several, by their names.
        judge = judge_namespaces if isinstance(handler, Mapping) else complaint_of_handler
        if (complaint := judge(name, handler)) is not None:
            return f'for {regex!r} {complaint}'
    return None


def judge_default_handlers(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {short_repr(value)}'
    return judge_namespaces('DEFAULT_WS_HANDLERS', value) if value else None


def judge_namespaces(setting: str, value: Mapping[Any, Any]) -> str | None:
    if 'default' not in value:
        return "has no 'default'"
    for namespace, handler in value.items():
        if not isinstance(namespace, str):
            return f'has the key {short_repr(namespace)}, which is no string'
        name = f'{setting}[{namespace!r}]'
        if (complaint := complaint_of_handler(name, handler)) is not None:
            return f'for {namespace!r} {complaint}'
    return None


def complaint_of_handler(name: str, value: Any) -> str | None:
    complaint = complaint_of_loading(name, value)
    if complaint is not None:
        return complaint
    handler = load(name, value)
    if not isinstance(handler, type):
        return f'must name a class, not {short_repr(handler)}'
    missing = missing_methods(handler, HANDLER_METHODS)
    return f'names a class that lacks {", ".join(missing)}' if missing else None

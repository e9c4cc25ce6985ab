"""What a project plugs in by a setting: how it is loaded, and what it must be."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from reprlib import repr as short_repr
from typing import Any, TypeAlias

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ws4redis.settings.setting import Judge

# The methods that are called, and with how many arguments; where there are several counts, with
# the first that fits.
Methods: TypeAlias = Mapping[str, tuple[int, ...]]

SUBSCRIBER_METHODS: Methods = {
    '__init__': (1,),
    'set_pubsub_channels': (2,),
    'get_file_descriptor': (0,),
    'parse_response': (0,),
    'publish_message': (1,),
    'release': (0,),
}
# One of the two will do: the second is the spelling of earlier versions.
SENDING_METHODS = ('send_persisted_messages', 'send_persited_messages')
SUBSCRIBER_ATTRIBUTES = ('subscription_channels', 'publish_channels')
HANDLER_METHODS: Methods = {
    '__init__': (0,),
    'on_connect': (0,),
    'on_open': (1,),
    'on_message': (1,),
    'on_close': (1, 0),
}
NOTIFICATION_STORE_METHODS: Methods = {
    '__init__': (0,),
    'add': (2,),
    'unread': (1,),
    'count': (1,),
    'mark_read': (2,),
}
# By its path, since handlers know the settings, not the other way round.
HANDLER_BASE = 'ws4redis.handlers.WebSocketHandler'
NOT_RUN = (inspect.isawaitable, inspect.isgenerator, inspect.isasyncgen)
NEVER_AWAITED = 'is asynchronous: it would be called, but never awaited. Write it with plain `def`'


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


def judge_callback(name: str, *, arguments: int) -> Judge:
    """Return a judge of a setting that holds a callable, its dotted path, or None.

    ``arguments`` is the number of arguments that it is called with.
    """

    def judge(value: Any) -> str | None:
        return None if value is None else complaint_of(load_callback, name, value, arguments)

    return judge


def load_callback(name: str, value: str | Callable[..., Any], arguments: int) -> Callable[..., Any]:
    """Return the callable of a setting that is called with a number of arguments.

    One that is a coroutine function is run to its end by who calls what is returned. Raise
    ``ImproperlyConfigured`` as :func:`load` does, and when the callable takes other arguments.
    """
    callback = load(name, value)
    if not takes(callback, arguments):
        raise ImproperlyConfigured(
            f'{name} must take {_counted(arguments)}, which {short_repr(callback)} does not.'
        )
    return async_to_sync(callback) if is_asynchronous(callback) else callback


def complaint_of(loader: Callable[..., Any], name: str, *arguments: Any) -> str | None:
    """Return what a loader complains about, to stand after the setting's name, or None."""
    try:
        loader(name, *arguments)
    except ImproperlyConfigured as exc:
        return str(exc).removeprefix(name).strip().rstrip('.')
    return None


# Callables


def is_asynchronous(function: Any) -> bool:
    """Tell whether calling this only makes a coroutine, which somebody would have to await."""
    candidates = (function, getattr(type(function), '__call__', None))  # noqa: B004
    return any(map(iscoroutinefunction, candidates))


def takes(function: Callable[..., Any], arguments: int) -> bool:
    """Tell whether a callable can be called with so many arguments, as far as it can be known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some that are written in C do not tell.
        return True
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def call(
    hook: str, function: Callable[..., Any], *arguments: object, may_yield: bool = False
) -> Any:
    """Call a hook that a project has plugged in, and return what it returns.

    Raise ``TypeError`` where it has not run at all, having returned a coroutine or generator: a
    callback that ought to have refused somebody has not been asked then. With ``may_yield`` a
    generator is as good as a list: the caller has to iterate over it.
    """
    result = function(*arguments)
    if result is None or (may_yield and inspect.isgenerator(result)):
        return result
    if not any(is_not_run(result) for is_not_run in NOT_RUN):
        return result
    if inspect.iscoroutine(result):
        # Else Python warns that nobody has awaited it.
        result.close()
    raise TypeError(f'{hook} returned {result!r} instead of doing its work')


def _counted(arguments: int) -> str:
    return f'{arguments} argument' if arguments == 1 else f'{arguments} arguments'


# Classes


def judge_subscriber(value: Any) -> str | None:
    complaint = complaint_of(load, 'WS4REDIS_SUBSCRIBER', value)
    if complaint is not None:
        return complaint
    subscriber = load('WS4REDIS_SUBSCRIBER', value)
    if not isinstance(subscriber, type):
        return f'must name a class, not {short_repr(subscriber)}'
    sending = [name for name in SENDING_METHODS if hasattr(subscriber, name)]
    needed = dict.fromkeys(sending or ['send_persisted_messages'], (1,))
    complaint = complaint_of_methods(subscriber, {**SUBSCRIBER_METHODS, **needed})
    missing = [name for name in SUBSCRIBER_ATTRIBUTES if not hasattr(subscriber, name)]
    return complaint or (f'names a class that lacks {", ".join(missing)}' if missing else None)


def judge_notification_store(value: Any) -> str | None:
    complaint = complaint_of(load, 'WS4REDIS_NOTIFICATION_STORE', value)
    if complaint is not None:
        return complaint
    store = load('WS4REDIS_NOTIFICATION_STORE', value)
    if not isinstance(store, type):
        return f'must name a class, not {short_repr(store)}'
    return complaint_of_methods(store, NOTIFICATION_STORE_METHODS)


def complaint_of_methods(cls: type[Any], methods: Methods) -> str | None:
    missing = [name for name in methods if not callable(getattr(cls, name, None))]
    if missing:
        return f'names a class that lacks {", ".join(missing)}'
    for name, counts in methods.items():
        method = getattr(cls, name)
        if is_asynchronous(method):
            return f'names a class whose {name}() {NEVER_AWAITED}'
        # As it is looked up in the class, a method takes the instance too.
        is_bound = isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
        if not any(takes(method, count if is_bound else count + 1) for count in counts):
            return f'names a class whose {name}() does not take {_counted(counts[0])}'
    return None


def judge_rpc(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {short_repr(value)}'
    for method, function in value.items():
        if not isinstance(method, str):
            return f'has the key {short_repr(method)}, which is no string'
        name = f'WS4REDIS_RPC[{method!r}]'
        if (complaint := complaint_of(load_callback, name, function, 2)) is not None:
            return f'for {method!r} {complaint}'
    return None


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
    complaint = complaint_of(load, name, value)
    if complaint is not None:
        return complaint
    handler = load(name, value)
    if not isinstance(handler, type):
        return f'must name a class, not {short_repr(handler)}'
    if not issubclass(handler, import_string(HANDLER_BASE)):
        return f'names a class that is no subclass of {HANDLER_BASE}: {short_repr(handler)}'
    return complaint_of_methods(handler, HANDLER_METHODS)

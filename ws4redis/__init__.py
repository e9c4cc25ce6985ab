from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ws4redis.decorators import accept_websocket as accept_websocket
    from ws4redis.decorators import require_websocket as require_websocket

__version__ = '1.1.0'


def __getattr__(name: str) -> Any:
    # dwebsocket had them here. Settings modules import this package before Django can be used.
    if name in {'accept_websocket', 'require_websocket'}:
        from ws4redis import decorators

        return getattr(decorators, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

"""The numbers of the client protocol: errors, and why connections and subscriptions end."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ErrorCode(IntEnum):
    """Why a command failed."""

    INTERNAL = 100
    UNAUTHORIZED = 101
    UNKNOWN_CHANNEL = 102
    PERMISSION_DENIED = 103
    METHOD_NOT_FOUND = 104
    ALREADY_SUBSCRIBED = 105
    LIMIT_EXCEEDED = 106
    BAD_REQUEST = 107
    NOT_AVAILABLE = 108
    TOKEN_EXPIRED = 109
    EXPIRED = 110
    TOO_MANY_REQUESTS = 111
    UNRECOVERABLE_POSITION = 112

    @property
    def message(self) -> str:
        return _MESSAGES.get(self, self.name.lower().replace('_', ' '))

    @property
    def is_temporary(self) -> bool:
        """Tell whether clients try again by themselves."""
        return self in (ErrorCode.INTERNAL, ErrorCode.TOO_MANY_REQUESTS)


_MESSAGES: Final = {ErrorCode.INTERNAL: 'internal server error'}

#: What a project's own code may answer with; below are the protocol's.
FIRST_ERROR_OF_PROJECTS: Final = 400
LAST_ERROR_OF_PROJECTS: Final = 1999


class DisconnectCode(IntEnum):
    """Why the server ends a connection: the close code of the websocket."""

    SHUTDOWN = 3001
    SERVER_ERROR = 3004
    EXPIRED = 3005
    SUBSCRIPTION_EXPIRED = 3006
    SLOW = 3008
    INSUFFICIENT_STATE = 3010
    FORCE_RECONNECT = 3011
    NO_PONG = 3012
    INVALID_TOKEN = 3500
    BAD_REQUEST = 3501
    STALE = 3502
    FORCE_DISCONNECT = 3503
    CONNECTION_LIMIT = 3504
    CHANNEL_LIMIT = 3505
    INAPPROPRIATE_PROTOCOL = 3506
    PERMISSION_DENIED = 3507

    @property
    def reason(self) -> str:
        return self.name.lower().replace('_', ' ')

    @property
    def comes_back(self) -> bool:
        return comes_back(self)


def comes_back(code: int) -> bool:
    """Tell whether clients connect again by themselves after a close code."""
    return not (3500 <= code < 4000 or 4500 <= code < 5000)


class UnsubscribeCode(IntEnum):
    """Why the server ends a subscription; from 2500 on the client subscribes again."""

    SERVER = 2000
    INSUFFICIENT_STATE = 2500
    EXPIRED = 2501

    @property
    def reason(self) -> str:
        return _UNSUBSCRIBE_REASONS[self]


_UNSUBSCRIBE_REASONS: Final = {
    UnsubscribeCode.SERVER: 'server unsubscribe',
    UnsubscribeCode.INSUFFICIENT_STATE: 'insufficient state',
    UnsubscribeCode.EXPIRED: 'subscription expired',
}

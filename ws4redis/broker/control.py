"""The control channel: what every process that holds connections has to know and act upon.

It is a history of its own. A message that is published rings a bell; what it says is always read
from the stream, from the last position that is known. So a process that was cut off reads what it
missed, and one that cannot is told so. How it fits together is told in
``docs/explanation/identity.md``.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from ws4redis.broker.history import MAX_ENTRIES_PER_READ, Kind, Position, publish_command
from ws4redis.broker.history import read_command as read_history
from ws4redis.broker.keys import ChannelKeys, keys_of
from ws4redis.broker.publication import Command
from ws4redis.settings.facilities import FacilityOptions

CONTROL_CHANNEL: Final = 'ws4redis:control'
# Longer than any ticket lives, so that a process which has just begun knows what has ended.
HISTORY_SECONDS: Final = 3600
HISTORY_SIZE: Final = 10_000
_OPTIONS: Final = FacilityOptions(history_size=HISTORY_SIZE, history_seconds=HISTORY_SECONDS)


class Do(StrEnum):
    """What a message of the control channel wants to be done."""

    DISCONNECT = 'disconnect'  # end the connections of a user or session
    UNSUBSCRIBE = 'unsubscribe'  # let them leave a channel
    CHECK = 'check'  # ask the session store and the database about them
    CHECK_SESSIONS = 'check-sessions'  # ask about everybody who has a session


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """One message of the control channel; whoever matches all that is given is meant.

    ``session`` is the digest of a session's key. ``at`` is the time of its making, in seconds of
    the Unix epoch.
    """

    do: str
    user: str | None = None
    user_id: str | None = None
    session: str | None = None
    channel: str | None = None
    code: int = 0
    reason: str = ''
    at: float = field(default_factory=time.time)

    def to_json(self) -> bytes:
        values = {name: value for name, value in asdict(self).items() if value not in (None, '', 0)}
        return json.dumps(values, separators=(',', ':')).encode()

    @classmethod
    def from_json(cls, payload: bytes) -> ControlMessage:
        """Read a message; raise ``ValueError`` for anything else."""
        values: Any = json.loads(payload)
        if not isinstance(values, dict):
            raise ValueError('a control message is an object')
        known = {name: values[name] for name in _TYPES if name in values}
        for name, value in known.items():
            if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
                raise ValueError(f'{name} of a control message is {value!r:.50}')
        if 'do' not in known:
            raise ValueError('a control message says what to do')
        return cls(**known)


_TYPES: Final[dict[str, Any]] = {
    item.name: {'code': int, 'at': (int, float)}.get(item.name, str)
    for item in fields(ControlMessage)
}


def digest_of_session(key: str) -> str:
    """Return what stands for a session's key where the key itself had better not be seen."""
    return hmac.digest(b'ws4redis.session', key.encode(), 'sha256').hex()[:32]


def control_keys(prefix: str) -> ChannelKeys:
    """Return the keys of the control channel; ``prefix`` is that of the settings, with colon."""
    return keys_of(f'{prefix}{CONTROL_CHANNEL}'.encode(), prefix)


def tell_command(prefix: str, message: ControlMessage, *, publish: bytes = b'PUBLISH') -> Command:
    """Return the command that publishes a message; ``publish`` is ``SPUBLISH`` in a Cluster."""
    return publish_command(
        control_keys(prefix),
        message.to_json(),
        _OPTIONS,
        keep_seconds=0,
        kind=Kind.JSON,
        publish=publish,
    )


def read_command(prefix: str, since: Position | None, *, publish: bytes = b'PUBLISH') -> Command:
    """Return the command that reads what came after a position."""
    return read_history(control_keys(prefix), since, has_seen=True, publish=publish)


def newest_command(prefix: str) -> Command:
    """Return the command that reads the newest messages that are still there, newest first."""
    return (
        *(b'XREVRANGE', control_keys(prefix).stream, b'+', b'-'),
        *(b'COUNT', MAX_ENTRIES_PER_READ),
    )


def messages_in(payloads: Sequence[bytes]) -> list[ControlMessage]:
    """Return the messages among some payloads; what is none of ours is passed over."""
    messages = []
    for payload in payloads:
        try:
            messages.append(ControlMessage.from_json(payload))
        except ValueError:
            continue
    return messages

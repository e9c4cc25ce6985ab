"""What passes through Redis: a chat message as JSON.

Anyone may publish on the channels, with `redis-cli` for example, so whatever is no such JSON
object counts as the text of a message from nobody in particular.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Self

MAX_TEXT_LENGTH = 1000
MAX_NAME_LENGTH = 40
NOBODY = 'redis'


def _new_id() -> str:
    return uuid.uuid4().hex


def _now_ms() -> int:
    return int(datetime.now(tz=UTC).timestamp() * 1000)


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """A message in a chat.

    ``recipient`` is a user's or a group's name, empty in the broadcast chat; ``sent_at`` counts
    milliseconds since 1970, as JavaScript does.
    """

    text: str
    sender: str = NOBODY
    recipient: str = ''
    id: str = field(default_factory=_new_id)
    sent_at: int | None = field(default_factory=_now_ms)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read what was kept in Redis; never raises."""
        text = payload.decode(errors='replace')
        try:
            given = json.loads(text)
        except ValueError:
            given = None
        if not isinstance(given, dict) or not isinstance(given.get('text'), str):
            return cls(text=text, id='', sent_at=None)
        sent_at = given.get('sent_at')
        return cls(
            text=given['text'],
            sender=str(given.get('sender', NOBODY)),
            recipient=str(given.get('recipient', '')),
            id=str(given.get('id', '')),
            sent_at=sent_at if isinstance(sent_at, int) else None,
        )

    @property
    def sent_at_datetime(self) -> datetime | None:
        """The time of sending, or None where the sender gave none, or nonsense."""
        if self.sent_at is None:
            return None
        try:
            return datetime.fromtimestamp(self.sent_at / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def initial(self) -> str:
        return self.sender[:1].upper()

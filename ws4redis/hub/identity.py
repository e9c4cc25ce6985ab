"""Who is at the other end of a connection, as far as the loop has to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, a session, groups; all of them are empty for an anonymous visitor.

    ``expires`` is the time, as ``time.time()`` has it, at which a token ends; None: never.
    ``info`` is shown to others, in presence and joins. ``channels`` are names, as clients give
    them, that the server subscribes the connection to by itself.
    """

    user: str | None = None
    session: str | None = None
    groups: tuple[str, ...] = ()
    is_staff: bool = False
    expires: float | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    @property
    def is_authenticated(self) -> bool:
        return self.user is not None


ANONYMOUS = Identity()

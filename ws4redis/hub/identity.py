"""Who is at the other end of a connection, as far as the loop has to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ws4redis.broker.control import digest_of_session


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, a session, groups; all of them are empty for an anonymous visitor.

    ``user`` is the name that the user's channels bear, ``user_id`` the primary key as text where
    there is one. ``session`` is the session's key, ``session_digest`` what stands for it elsewhere.
    ``stamp`` changes when the user's password does; None: unknown. ``groups`` are those of the
    user where ``knows_groups``, else nobody has asked. ``expires`` is the time, as
    ``time.time()`` has it, at which a token ends; None: never. ``info`` is shown to others, in
    presence and joins. ``channels`` are names, as clients give them, that the server subscribes the
    connection to by itself.
    """

    user: str | None = None
    session: str | None = field(default=None, repr=False)
    groups: tuple[str, ...] = ()
    is_staff: bool = False
    expires: float | None = None
    info: Mapping[str, Any] = field(default_factory=dict, hash=False)
    channels: tuple[str, ...] = ()
    user_id: str | None = None
    session_digest: str | None = None
    stamp: str | None = field(default=None, repr=False)
    knows_groups: bool = False

    @property
    def is_authenticated(self) -> bool:
        return self.user is not None

    @property
    def is_nobody(self) -> bool:
        """Tell whether there is no name by which it could be found."""
        return self.user is None and self.user_id is None and self.session_digest is None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; the session's key is part of it."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Identity:
        """Return what :meth:`as_dict` was called for."""
        known = {name: values[name] for name in _FIELDS if name in values}
        for name in ('groups', 'channels'):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)


# To ask a dataclass for its fields takes as long as all the rest of making one.
_FIELDS = tuple(item.name for item in fields(Identity))

ANONYMOUS = Identity()


def digest_of(session: str | None) -> str | None:
    """Return what stands for a session's key where the key had better not be seen."""
    return None if session is None else digest_of_session(session)

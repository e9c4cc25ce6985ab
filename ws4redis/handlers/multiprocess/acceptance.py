"""What a worker answers when a handler takes a websocket: whom to count, and in whose name it is.

It is sealed, since the key of a session is a part of it.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from ws4redis.handlers.multiprocess.sealing import seal, unseal
from ws4redis.hub.identity import ANONYMOUS, Identity


class Acceptance(NamedTuple):
    """The user whose websockets are counted, if any, and the identity."""

    user: str | None = None
    identity: Identity = ANONYMOUS

    def sealed(self) -> bytes:
        values = {'user': self.user, 'identity': self.identity.as_dict()}
        return seal(json.dumps(values).encode())

    @classmethod
    def unsealed(cls, payload: bytes) -> Acceptance:
        """Return what :meth:`sealed` was called for; raise ``WrongSeal``."""
        values = json.loads(unseal(payload))
        return cls(values['user'], Identity.from_dict(values['identity']))

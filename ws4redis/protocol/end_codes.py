"""The close codes with which a connection ends because what it was granted has ended.

They are those of the client protocol where it has one (3000 to 3999), and our own elsewhere (4000
to 4999). From 3500 to 3999, and from 4500 on, a client does not come back by itself.
"""

from __future__ import annotations

from enum import IntEnum

from ws4redis.protocol.client.codes import DisconnectCode


class EndCode(IntEnum):
    """Why a connection ended that had a right to be there before."""

    EXPIRED = DisconnectCode.EXPIRED  # the time of its token or session is over
    DISCONNECTED = DisconnectCode.FORCE_DISCONNECT  # the project wants it so: disconnect()
    SESSION_ENDED = 4001  # its session is not in the store any more
    CREDENTIALS_CHANGED = 4002  # the password, say
    GROUPS_CHANGED = 4003  # the user is in other groups than before, or is no longer staff
    LOGGED_OUT = 4501
    DEACTIVATED = 4502
    DELETED = 4503


REASONS = {
    EndCode.EXPIRED: 'expired',
    EndCode.DISCONNECTED: 'disconnected',
    EndCode.SESSION_ENDED: 'session ended',
    EndCode.CREDENTIALS_CHANGED: 'credentials changed',
    EndCode.GROUPS_CHANGED: 'groups changed',
    EndCode.LOGGED_OUT: 'logged out',
    EndCode.DEACTIVATED: 'user deactivated',
    EndCode.DELETED: 'user deleted',
}

"""What anonymous handshakes are granted: the same for all that ask for the same.

Where nobody has to be asked who somebody is, the policy is a function of a few parts of the
request. In a storm it is worked out once for each URL, and looked up ten thousand times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from django.conf import settings

from ws4redis.handshake.origins import ORIGIN_HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ws4redis.handshake.policy import Admission

MAX_REMEMBERED = 1024

# All that path, host, scheme and origin may depend on.
_PARTS = (
    'PATH_INFO',
    'SCRIPT_NAME',
    'QUERY_STRING',
    'HTTP_HOST',
    *ORIGIN_HEADERS,
    'HTTP_X_FORWARDED_HOST',
    'HTTP_X_FORWARDED_PORT',
    'SERVER_NAME',
    'SERVER_PORT',
    'wsgi.url_scheme',
)

Key: TypeAlias = 'tuple[Any, ...]'


def key_of(environ: WSGIEnvironment) -> Key:
    """Return by what two handshakes that nobody asks who they are can differ."""
    # Settings that a test overrides are another object.
    wrapped = object.__getattribute__(settings, '_wrapped')
    secure = wrapped.SECURE_PROXY_SSL_HEADER
    get = environ.get
    return (wrapped, get(secure[0]) if secure else None, *map(get, _PARTS))


class Strangers:
    """Remember the admissions of anonymous handshakes. Safe in any thread."""

    def __init__(self) -> None:
        self._admissions: dict[Key, Admission] = {}

    def find(self, key: Key) -> Admission | None:
        return self._admissions.get(key)

    def remember(self, key: Key, admission: Admission) -> None:
        """Give what was granted to all that come with the same key."""
        if len(self._admissions) >= MAX_REMEMBERED:
            # Clients choose their URLs. Those that are used will be back at once.
            self._admissions.clear()
        admission.is_shared = True
        # The request of the first to come is nobody else's, and many times as large as all else.
        admission.subscriber.request = None
        self._admissions[key] = admission

    def forget(self) -> None:
        """Forget all: a setting has changed."""
        self._admissions.clear()


strangers = Strangers()
"""Those of this process."""

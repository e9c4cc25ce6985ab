"""The form of tickets: a token (JWT, RFC 7519) that only this package makes and takes.

One form of header, one algorithm, three claims: so it is checked in a tenth of the time that any
token takes. When ten thousand clients come back, each shows one. What is of another form is read as
any token is.
"""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

from ws4redis.publishing.tokens import InvalidToken, claims_of, hmac_keys, signing_key

_HEADER: Final = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b'=')
_CLAIMS: Final = frozenset({'ticket', 'iat', 'exp'})


def sign_ticket(values: Mapping[str, Any], *, made_at: float, expires: float) -> str:
    """Return a ticket; raise ``ImproperlyConfigured`` where there is no key for it."""
    claims = {'ticket': values, 'iat': made_at, 'exp': expires}
    content = json.dumps(claims, separators=(',', ':')).encode()
    signed = _HEADER + b'.' + urlsafe_b64encode(content).rstrip(b'=')
    return (signed + b'.' + _signature(signing_key(), signed)).decode()


def claims_of_ticket(ticket: str) -> dict[str, Any]:
    """Return the claims of a ticket; raise ``InvalidToken``."""
    try:
        text = ticket.encode('ascii')
    except UnicodeEncodeError:
        raise InvalidToken('it is no token') from None
    signed, _, signature = text.rpartition(b'.')
    header, _, content = signed.partition(b'.')
    if header != _HEADER:
        return claims_of(ticket)
    if not any(hmac.compare_digest(_signature(key, signed), signature) for key in hmac_keys()):
        raise InvalidToken('its signature is wrong')
    try:
        claims = json.loads(urlsafe_b64decode(content + b'=='))
        if not isinstance(claims, dict) or claims.keys() != _CLAIMS:
            return claims_of(ticket)
        has_expired = int(claims['exp']) <= time.time()
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidToken('it is malformed') from None
    if has_expired:
        raise InvalidToken('it has expired', has_expired=True)
    return claims


def _signature(key: bytes, signed: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(key, signed, 'sha256')).rstrip(b'=')

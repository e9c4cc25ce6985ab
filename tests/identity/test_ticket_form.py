"""The form of tickets: what is taken for one, and what is not."""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from ws4redis.publishing.tickets import claims_of_ticket, sign_ticket
from ws4redis.publishing.tokens import InvalidToken, claims_of, sign, signing_key

KEY, OTHER_KEY = 'the first key of HMAC', 'the second key of HMAC'
PUBLIC_KEY = '-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----'
VALUES = {'user': 'märy', 'user_id': '7'}


def ticket(seconds: float = 60) -> str:
    now = time.time()
    return sign_ticket(VALUES, made_at=now, expires=now + seconds)


def encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).rstrip(b'=').decode()


NO_HEADER, UNSIGNED = encoded('{}'), encoded('{"alg":"none","typ":"JWT"}')


def test_a_ticket_says_what_was_signed_and_is_a_token_of_rfc_7519() -> None:
    shown = ticket()
    claims = claims_of_ticket(shown)
    assert claims['ticket'] == VALUES
    assert claims_of(shown) == claims


def test_a_ticket_of_a_release_that_signed_it_as_any_token_is_taken() -> None:
    now = time.time()
    claims = {'ticket': VALUES, 'iat': now, 'exp': now + 60}
    assert claims_of_ticket(sign(claims)) == claims
    with override_settings(WS4REDIS_TOKEN_KEYS=KEY):
        other = jwt.encode(claims, KEY.encode().ljust(64, b'\0'), algorithm='HS512')
        assert claims_of_ticket(other) == claims


def test_a_ticket_outlives_its_key_as_long_as_that_is_a_fallback() -> None:
    with override_settings(SECRET_KEY='old'):
        shown = ticket()
    with override_settings(SECRET_KEY='new', SECRET_KEY_FALLBACKS=['older', 'old']):
        assert claims_of_ticket(shown)['ticket'] == VALUES
    with override_settings(SECRET_KEY='new'), pytest.raises(InvalidToken):
        claims_of_ticket(shown)
    with override_settings(WS4REDIS_TOKEN_KEYS=[KEY, OTHER_KEY]):
        shown = ticket()
    with override_settings(WS4REDIS_TOKEN_KEYS=[OTHER_KEY, KEY]):
        assert claims_of_ticket(shown)['ticket'] == VALUES
    with override_settings(WS4REDIS_TOKEN_KEYS=OTHER_KEY), pytest.raises(InvalidToken):
        claims_of_ticket(shown)


def test_an_expired_ticket_is_told_from_a_forged_one() -> None:
    with pytest.raises(InvalidToken) as expired:
        claims_of_ticket(ticket(-1))
    assert expired.value.has_expired


def forged(shown: str) -> list[str]:
    header, content, signature = shown.split('.')
    now = int(time.time())
    hers = encoded(f'{{"ticket":{{"user":"eve"}},"iat":{now},"exp":{now + 60}}}')
    flipped = 'A' if signature[0] != 'A' else 'B'
    return [
        f'{header}.{hers}.{signature}',
        f'{header}.{content}.{flipped}{signature[1:]}',
        f'{header}.{content}.{signature[:-1]}',
        f'{header}.{content}.{signature}=',
        f'{header}.{content}.',
        f'{header}.{content}',
        f'{header}..{signature}',
        f'.{content}.{signature}',
        f'{NO_HEADER}.{content}.{signature}',
        f'{UNSIGNED}.{hers}.',
        f'{header}.{content}.{signature}.{signature}',
        f'{shown}ä',
        f'{shown}\ud800',
        header,
        '..',
        '',
    ]


def test_what_was_not_signed_here_is_no_ticket() -> None:
    shown = ticket()
    assert claims_of_ticket(shown)
    for each in forged(shown):
        with pytest.raises(InvalidToken):
            claims_of_ticket(each)


@pytest.mark.parametrize('expires', [None, 'soon', [1], float('inf'), float('nan')])
def test_a_ticket_that_does_not_say_when_it_ends_is_none(expires: Any) -> None:
    with pytest.raises(InvalidToken):
        claims_of_ticket(sign_ticket(VALUES, made_at=time.time(), expires=expires))


def test_a_ticket_that_is_nested_too_deeply_is_none() -> None:
    # Whoever shares the key may have signed what others gave it.
    content = f'{{"ticket":{"[" * 100_000}'
    header, _, _ = ticket().split('.')
    signed = f'{header}.{encoded(content)}'.encode()
    signature = urlsafe_b64encode(hmac.digest(signing_key(), signed, 'sha256')).rstrip(b'=')
    with pytest.raises(InvalidToken):
        claims_of_ticket(f'{signed.decode()}.{signature.decode()}')


def test_what_else_our_key_has_signed_is_checked_as_any_token() -> None:
    now = time.time()
    claims = {'sub': 'mary', 'exp': now + 60}
    assert claims_of_ticket(sign(claims)) == claims
    with pytest.raises(InvalidToken):
        claims_of_ticket(sign({'ticket': VALUES, 'iat': now, 'exp': now + 60, 'nbf': now + 30}))
    shown = jwt.encode({'ticket': VALUES}, 'a key that is not ours' * 2, algorithm='HS256')
    with pytest.raises(InvalidToken):
        claims_of_ticket(shown)


def test_keys_that_only_check_neither_sign_tickets_nor_believe_them() -> None:
    shown = ticket()
    with override_settings(WS4REDIS_TOKEN_KEYS=PUBLIC_KEY):
        with pytest.raises(ImproperlyConfigured):
            ticket()
        with pytest.raises(InvalidToken):
            claims_of_ticket(shown)


def test_a_public_key_is_no_secret() -> None:
    with override_settings(WS4REDIS_TOKEN_KEYS=KEY):
        header, content, _ = ticket().split('.')
    signed = f'{header}.{content}'.encode()
    signature = urlsafe_b64encode(hmac.digest(PUBLIC_KEY.encode(), signed, 'sha256')).rstrip(b'=')
    with override_settings(WS4REDIS_TOKEN_KEYS=PUBLIC_KEY), pytest.raises(InvalidToken):
        claims_of_ticket(f'{signed.decode()}.{signature.decode()}')

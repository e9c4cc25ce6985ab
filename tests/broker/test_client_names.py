from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.broker.channels import Audience
from ws4redis.broker.client_names import ClientName, client_name, full_name, parse_client_name


@pytest.mark.parametrize(
    ('name', 'full', 'known_as'),
    [
        ('broadcast:chat/7', 'p:broadcast:chat/7', 'broadcast:chat/7'),
        ('user:inbox', 'p:user:an%3Aa:inbox', 'user:inbox'),
        ('user:a:b', 'p:user:an%3Aa:a:b', 'user:a:b'),
        ('session:cart', 'p:session:key:cart', 'session:cart'),
        ('group:staff:news', 'p:group:staff:news', 'group:staff:news'),
        ('group:a%3Ab:news', 'p:group:a%3Ab:news', 'group:a%3Ab:news'),
    ],
)
def test_a_channel_is_known_without_user_session_and_prefix(
    name: str, full: str, known_as: str
) -> None:
    parsed = parse_client_name(name)
    assert full_name(parsed, user='an:a', session='key', prefix='p:') == full
    assert client_name(full, prefix='p:') == known_as


@pytest.mark.parametrize('name', ['chat', 'recovery:x', '', 'broadcast', 'group'])
def test_a_name_without_an_audience_is_a_broadcast(name: str) -> None:
    parsed = parse_client_name(name)
    assert parsed == ClientName(Audience.BROADCAST, '', name, is_short=True)
    full = full_name(parsed, user=None, session=None)
    assert full == f'broadcast:{name}'
    assert client_name(full, is_short=True) == name


def test_a_group_needs_a_facility() -> None:
    with pytest.raises(ValueError, match='without a facility'):
        parse_client_name('group:staff')


@pytest.mark.parametrize('name', ['user:inbox', 'session:cart'])
def test_nobody_has_no_personal_channel(name: str) -> None:
    assert full_name(parse_client_name(name), user=None, session=None) is None


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_no_name_reaches_the_channel_of_another_user_or_session(
    facility: str, user: str, other: str
) -> None:
    for word in ('user', 'session'):
        own = full_name(parse_client_name(f'{word}:{facility}'), user=user, session=user)
        others = full_name(parse_client_name(f'{word}:{facility}'), user=other, session=other)
        assert (own == others) is (user == other)


@given(st.text())
def test_a_name_comes_back_as_it_was_given(name: str) -> None:
    try:
        parsed = parse_client_name(name)
    except ValueError:
        return
    full = full_name(parsed, user='ann', session='key', prefix='p:')
    assert full is not None
    expected = name
    if parsed.audience is Audience.GROUP:
        # Names of groups are quoted in one way only.
        expected = client_name(full, prefix='p:')
    assert client_name(full, prefix='p:', is_short=parsed.is_short) == expected

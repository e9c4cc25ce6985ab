from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.broker.channels import (
    Audience,
    channel_name,
    channel_names,
    facility_of,
    is_websocket_path,
    options_of,
    quote_name,
    unquote_name,
)

# Names


def test_a_broadcast_channel_is_named_by_its_facility() -> None:
    assert channel_name(Audience.BROADCAST, 'foo') == 'broadcast:foo'


@pytest.mark.parametrize('audience', ['user', 'group', 'session'])
def test_other_channels_are_named_by_whom_they_reach(audience: str) -> None:
    assert channel_name(Audience(audience), 'foo', 'john') == f'{audience}:john:foo'


@pytest.mark.parametrize('audience', list(Audience))
def test_the_prefix_comes_first(audience: Audience) -> None:
    unprefixed = channel_name(audience, 'foo', 'john')
    assert channel_name(audience, 'foo', 'john', prefix='site:') == f'site:{unprefixed}'


def test_a_percent_sign_and_a_colon_in_a_name_are_quoted() -> None:
    assert quote_name('50%:x') == '50%25%3Ax'
    assert channel_name(Audience.USER, 'foo', 'a:b') == 'user:a%3Ab:foo'


def test_the_facility_is_not_quoted() -> None:
    assert channel_name(Audience.BROADCAST, 'a/b:c%d é') == 'broadcast:a/b:c%d é'


def test_other_characters_of_a_name_stay_as_they_are() -> None:
    assert quote_name('jürgen müller+@例え.jp') == 'jürgen müller+@例え.jp'


@given(st.text())
def test_a_quoted_name_can_be_read_back(name: str) -> None:
    assert unquote_name(quote_name(name)) == name


@given(st.text(), st.text(), st.text(), st.text())
def test_no_name_reaches_into_the_channel_of_another(
    name: str, facility: str, other_name: str, other_facility: str
) -> None:
    same = channel_name(Audience.USER, facility, name) == channel_name(
        Audience.USER, other_facility, other_name
    )
    assert same == ((name, facility) == (other_name, other_facility))


def test_channel_names_are_in_the_order_of_fetching() -> None:
    assert channel_names(
        'foo', broadcast=True, users=['u'], groups=['g', 'h'], sessions=['s'], prefix='p:'
    ) == ['p:session:s:foo', 'p:user:u:foo', 'p:group:g:foo', 'p:group:h:foo', 'p:broadcast:foo']


def test_each_channel_is_named_once() -> None:
    assert channel_names('foo', users=['u', 'v', 'u']) == ['user:u:foo', 'user:v:foo']


# The URL


@pytest.mark.parametrize(
    ('path', 'facility'),
    [
        ('/ws/foo', 'foo'),
        ('/ws/', ''),
        ('/ws/foo/', 'foo/'),
        ('/ws/room/7/a', 'room/7/a'),
        ('/ws//foo', '/foo'),
        ('/ws/ws/foo', 'ws/foo'),
        ('/ws/größe 例え', 'größe 例え'),
        ('/ws/a%2Fb', 'a%2Fb'),
        ('/ws/Foo:Bar', 'Foo:Bar'),
    ],
)
def test_the_facility_is_the_path_after_the_prefix(path: str, facility: str) -> None:
    assert facility_of(path, '/ws/') == facility


def test_the_prefix_may_lack_its_last_slash() -> None:
    assert facility_of('/ws/foo', '/ws') == 'foo'
    assert not is_websocket_path('/wsfoo', '/ws')


def test_the_prefix_may_be_the_root() -> None:
    assert facility_of('/foo', '/') == 'foo'


@pytest.mark.parametrize('path', ['/', '/ws', '/chat/ws/foo', 'ws/foo', ''])
def test_a_path_outside_the_prefix_has_no_facility(path: str) -> None:
    assert not is_websocket_path(path, '/ws/')
    with pytest.raises(ValueError, match='does not lie under'):
        facility_of(path, '/ws/')


# The options


@pytest.mark.parametrize('verb', ['subscribe', 'publish'])
@pytest.mark.parametrize('audience', ['broadcast', 'user', 'group', 'session'])
def test_both_spellings_mean_the_same(verb: str, audience: str) -> None:
    assert options_of(f'{verb}-{audience}') == options_of(f'{verb}={audience}')
    assert options_of(f'{verb}-{audience}') == [f'{verb}-{audience}']


@pytest.mark.parametrize(
    ('query', 'options'),
    [
        ('', []),
        ('echo', ['echo']),
        ('publish-user&echo&subscribe-user', ['publish-user', 'echo', 'subscribe-user']),
        ('Subscribe-BROADCAST&ECHO', ['subscribe-broadcast', 'echo']),
        ('SUBSCRIBE=Broadcast', ['subscribe-broadcast']),
        ('subscribe=broadcast,user', ['subscribe-broadcast', 'subscribe-user']),
        ('subscribe=broadcast&subscribe=user', ['subscribe-broadcast', 'subscribe-user']),
        ('subscribe=broadcast%2Cuser', ['subscribe-broadcast', 'subscribe-user']),
        ('subscribe=broadcast,+user,', ['subscribe-broadcast', 'subscribe-user']),
        ('subscribe=broadcast&subscribe-broadcast', ['subscribe-broadcast']),
        ('subscribe-broadcast=&echo=1', ['subscribe-broadcast', 'echo']),
        ('subscribe%2Dbroadcast', ['subscribe-broadcast']),
        ('subscribe&publish=', []),
        ('&&=x&', []),
    ],
)
def test_options_are_read_in_any_order_case_and_spelling(query: str, options: list[str]) -> None:
    assert options_of(query) == options


def test_options_that_nobody_knows_are_left_to_the_caller() -> None:
    assert options_of('token=abc&subscribe=all') == ['token', 'subscribe-all']


@given(st.text())
def test_no_query_string_is_an_error(query: str) -> None:
    options_of(query)

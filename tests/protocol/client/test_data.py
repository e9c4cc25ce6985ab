from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.protocol.client.data import data_of, payload_of


def test_text_is_a_string_a_value_itself_and_bytes_an_object() -> None:
    assert data_of('grün\n'.encode(), is_json=False) == '"grün\\n"'
    assert data_of(b'{"a": 1}', is_json=True) == '{"a": 1}'
    assert data_of(b'\xff\x00', is_json=False) == '{"b64":"/wA="}'


def test_a_value_stays_on_its_line() -> None:
    assert data_of(b'{\r\n "a": "x\\n"\n}', is_json=True) == '{   "a": "x\\n" }'


def test_what_only_claims_to_be_a_value_is_a_string() -> None:
    assert data_of(b'{"a":', is_json=True) == '"{\\"a\\":"'
    assert data_of(b'NaN', is_json=True) == '"NaN"'


def test_a_client_publishes_text_values_and_bytes() -> None:
    assert payload_of('grün') == ('grün'.encode(), False)
    assert payload_of({'a': [1, None]}) == (b'{"a":[1,null]}', True)
    assert payload_of({'b64': '/wA='}) == (b'\xff\x00', False)
    assert payload_of({'b64': 'no base64!'}) == (b'{"b64":"no base64!"}', True)
    assert payload_of({'b64': 1}) == (b'{"b64":1}', True)


@pytest.mark.parametrize('value', ['\ud800', ['\ud800'], float('inf'), {'a': float('nan')}])
def test_what_no_message_can_carry_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        payload_of(value)


@given(st.binary(max_size=100), st.booleans())
def test_every_payload_is_one_line_of_json(payload: bytes, is_json: bool) -> None:
    data = data_of(payload, is_json=is_json)
    json.loads(data)
    assert '\n' not in data
    assert '\r' not in data


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_a_client_publishes_arrives_as_it_was(value: Any) -> None:
    try:
        content, is_json = payload_of(value)
    except UnicodeEncodeError:
        return
    assert json.loads(data_of(content, is_json=is_json)) == value

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.client_frames import xor
from tests.requirements import require
from tests.timeouts import SERVER_SECONDS
from ws4redis.protocol import masking

MASKS = st.binary(min_size=4, max_size=4)
LONG = bytes(range(256)) * 40


@given(data=st.binary(max_size=200), mask=MASKS)
@example(data=LONG, mask=b'\x01\x80\xff\x00')
@example(data=LONG + b'abc', mask=b'\x01\x80\xff\x00')
def test_each_implementation_is_the_xor_of_the_rfc(data: bytes, mask: bytes) -> None:
    for name, apply_mask in masking.available().items():
        masked = apply_mask(data, mask)
        assert masked == xor(data, mask), name
        assert type(masked) is bytes, name


@pytest.mark.parametrize('data', [b'', b'short', LONG])
def test_each_implementation_takes_views_and_leaves_them_as_they_are(data: bytes) -> None:
    mask = b'\x01\x02\x03\x04'
    for name, apply_mask in masking.available().items():
        buffer = bytearray(data)
        assert apply_mask(memoryview(buffer), mask) == xor(data, mask), name
        assert buffer == data, name


def test_the_fastest_implementation_is_chosen() -> None:
    names = list(masking.available())
    assert names == [name for name in ('websockets', 'wsaccel', 'python') if name in names]
    assert masking.apply_mask is masking.available()[names[0]]


def test_wsaccel_is_used_where_it_is_installed() -> None:
    require('wsaccel' in masking.available(), 'wsaccel is not installed')
    assert _names_without('websockets') == ['wsaccel', 'python']


def test_without_any_accelerator_plain_python_masks() -> None:
    assert _names_without('websockets', 'wsaccel') == ['python']


def _names_without(*packages: str) -> list[str]:
    """Return the implementations that a process finds in which ``packages`` cannot be imported."""
    script = (
        'import sys\n'
        f'sys.modules.update(dict.fromkeys({packages!r}))\n'
        'from ws4redis.protocol import masking\n'
        'from ws4redis.protocol.connection import Limits, ServerConnection\n'
        'frame = bytes([0x81, 0x82, 1, 2, 3, 4, 0x68 ^ 1, 0x69 ^ 2])\n'
        'assert ServerConnection(Limits()).receive_data(frame) == [(1, b"hi")]\n'
        'print(*masking.available())\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=True,
    )
    return done.stdout.split()

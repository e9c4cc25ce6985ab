"""Masking: the XOR of a payload with a client's four bytes (RFC 6455, section 5.3).

``apply_mask`` is the fastest of three implementations that is there, chosen once at import:

==============  =======  =======  ========================================================
name            20 B     64 KiB   what it is
==============  =======  =======  ========================================================
``websockets``  0.1 µs   1.3 µs   C with vector instructions, from the ``websockets`` library
``wsaccel``     0.3 µs   37 µs    C, byte by byte
``python``      0.4 µs   105 µs   integers, and tables for long payloads
==============  =======  =======  ========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import cast

ApplyMask = Callable[[bytes | memoryview, bytes], bytes]

#: From here on four translations by table are faster than one XOR of two integers.
_TABLES_FROM_BYTES = 4096


def _python_apply_mask(data: bytes | memoryview, mask: bytes) -> bytes:
    length = len(data)
    if length >= _TABLES_FROM_BYTES:
        return _translate(data, mask)
    repeated = mask * (length // 4) + mask[: length % 4]
    masked = int.from_bytes(data, 'little') ^ int.from_bytes(repeated, 'little')
    return masked.to_bytes(length, 'little')


def _translate(data: bytes | memoryview, mask: bytes) -> bytes:
    data = bytes(data)  # Views cannot be translated.
    masked = bytearray(len(data))
    for offset in range(4):
        masked[offset::4] = data[offset::4].translate(_xor_table(mask[offset]))
    return bytes(masked)


@cache
def _xor_table(byte: int) -> bytes:
    return bytes(value ^ byte for value in range(256))


def _wsaccel_apply_mask() -> ApplyMask:
    masker = import_module('wsaccel.xormask').XorMaskerSimple

    def apply_mask(data: bytes | memoryview, mask: bytes) -> bytes:
        return cast(bytes, masker(mask).process(data))

    return apply_mask


def _websockets_apply_mask() -> ApplyMask:
    return cast(ApplyMask, import_module('websockets.speedups').apply_mask)


def available() -> dict[str, ApplyMask]:
    """Return every implementation that works here, by name, the fastest first."""
    return dict(_implementations())


def _implementations() -> Iterator[tuple[str, ApplyMask]]:
    for name, load in (('websockets', _websockets_apply_mask), ('wsaccel', _wsaccel_apply_mask)):
        try:
            implementation = load()
            # Neither is an interface that its package promises: make sure that it does the same.
            if implementation(b'frames', b'\x01\x02\x03\x04') == b'gpbidq':
                yield name, implementation
        except (ImportError, AttributeError, TypeError):
            continue
    yield 'python', _python_apply_mask


#: Return ``data`` XORed with the four bytes ``mask``, over and over. Masking twice unmasks.
apply_mask: ApplyMask = next(_implementations())[1]

"""The client's side of the wire: upgrade requests, masked frames, and reading frames back.

The load client only needs the lengths of the frames that it receives, so it walks over them by
itself (`swarm.py`). What is here is used outside of the measured loop.
"""

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping

# One key for all: RFC 6455, section 4.1 wants a random one to keep caches from answering; here
# there are none, and a constant key makes the expected answer a constant, too.
KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()
)

FINAL = 0x80
COMPRESSED = 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

DEFLATE_OFFER = 'permessage-deflate; client_max_window_bits'


def upgrade_request(
    path: str, *, host: str, compression: bool = False, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of an opening handshake (RFC 6455, section 4.1).

    Args:
        path: path and query of the websocket's URL.
        host: value of the `Host` header.
        compression: offer permessage-deflate the way browsers do.
        headers: further headers, such as `Cookie`.
    """
    fields = {
        'Host': host,
        'Upgrade': 'websocket',
        'Connection': 'Upgrade',
        'Sec-WebSocket-Key': KEY,
        'Sec-WebSocket-Version': '13',
    }
    if compression:
        fields['Sec-WebSocket-Extensions'] = DEFLATE_OFFER
    fields.update(headers or {})
    lines = [f'GET {path} HTTP/1.1', *(f'{name}: {value}' for name, value in fields.items())]
    return '\r\n'.join([*lines, '', '']).encode('ascii')


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """Return one unfragmented frame from client to server.

    The masking key is zero, which leaves the payload as it is: servers unmask all the same.
    """
    size = len(payload)
    if size < 126:
        head = struct.pack('!BB', FINAL | opcode, FINAL | size)
    elif size < 65536:
        head = struct.pack('!BBH', FINAL | opcode, FINAL | 126, size)
    else:
        head = struct.pack('!BBQ', FINAL | opcode, FINAL | 127, size)
    return head + b'\0\0\0\0' + payload


def iterate_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield first byte and payload of each complete frame that a server sent."""
    position = 0
    while len(data) - position >= 2:
        size, start = data[position + 1] & 0x7F, position + 2
        if size == 126:
            size, start = int.from_bytes(data[start : start + 2]), start + 2
        elif size == 127:
            size, start = int.from_bytes(data[start : start + 8]), start + 8
        if start + size > len(data):
            return
        yield data[position], data[start : start + size]
        position = start + size


def iterate_messages(data: bytes) -> Iterator[bytes]:
    """Yield the text and binary messages in what a server sent, inflated if compressed.

    Handles context takeover (RFC 7692, section 7.2.2): a server that resets its context with each
    message is understood as well, since a fresh context refers to nothing before it.
    """
    inflater = zlib.decompressobj(-15)
    fragments: list[bytes] = []
    compressed = False
    for first, payload in iterate_frames(data):
        opcode = first & 0x0F
        if opcode > BINARY:
            continue
        if opcode != CONTINUATION:
            fragments, compressed = [], bool(first & COMPRESSED)
        fragments.append(payload)
        if first & FINAL:
            message = b''.join(fragments)
            if compressed:
                message = inflater.decompress(message + b'\x00\x00\xff\xff')
            yield message

"""The message that a connection is receiving, as long as it is not complete.

Exists only between the first byte of a message and its last one, and only for messages that do not
come in one frame and one read: an idle websocket has none.
"""

from __future__ import annotations

from ws4redis.exceptions import ProtocolError
from ws4redis.protocol.deflate import Inflater
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.protocol.limits import Limits
from ws4redis.protocol.masking import apply_mask
from ws4redis.protocol.utf8 import unfinished_character


class IncomingMessage:
    """Collect a message from its frames, and these from any number of reads.

    Pieces are unmasked, inflated and validated as they come, so that an invalid message fails at
    its first wrong byte and no more is held than the message's own bytes. All methods raise
    ``ProtocolError``.
    """

    __slots__ = (
        '_checks_text',
        '_content',
        '_inflater',
        '_limits',
        '_mask',
        '_received_bytes',
        '_unfinished',
        'fragments',
        'is_last_frame',
        'opcode',
        'remaining',
    )

    def __init__(self, opcode: Opcode, limits: Limits, *, compressed: bool) -> None:
        self.opcode = opcode
        self.fragments = 0
        #: Bytes of the current frame's payload that have not been received.
        self.remaining = 0
        self.is_last_frame = False
        self._limits = limits
        self._mask = b''
        self._received_bytes = 0
        self._content = bytearray()
        self._inflater = Inflater(limits.max_message_size) if compressed else None
        self._checks_text = opcode is Opcode.TEXT
        self._unfinished = b''

    @property
    def inflated_bytes(self) -> int:
        """By how many bytes the message is larger than what was received of it."""
        return 0 if self._inflater is None else max(0, len(self._content) - self._received_bytes)

    def check_frame(self, length: int) -> None:
        """Refuse a frame by its announced ``length`` in bytes, before any of it is held."""
        limits = self._limits
        if self.fragments >= limits.max_fragments:
            raise ProtocolError(CloseCode.MESSAGE_TOO_BIG, 'message has too many fragments')
        is_compressed = self._inflater is not None
        if self._received_bytes + length > limits.max_received_bytes(compressed=is_compressed):
            raise ProtocolError(CloseCode.MESSAGE_TOO_BIG, 'message is too big')

    def begin_frame(self, length: int, mask: bytes, *, is_last: bool) -> None:
        """Expect a frame with ``length`` bytes of payload, checked before, under ``mask``."""
        self.fragments += 1
        self.remaining = length
        self.is_last_frame = is_last
        self._mask = mask

    def receive(self, masked: bytes | memoryview) -> None:
        """Take a piece of the current frame's payload, not more than ``remaining`` bytes."""
        length = len(masked)
        content = apply_mask(masked, self._mask)
        self.remaining -= length
        self._received_bytes += length
        if length & 3 and self.remaining:
            # The next piece begins elsewhere in the mask.
            self._mask = self._mask[length & 3 :] + self._mask[: length & 3]
        if self._inflater is not None:
            content = self._inflater.inflate(content)
        self._append(content)

    def finish(self) -> bytes:
        """Return the message's payload when its last frame is complete."""
        if self._inflater is not None:
            self._append(self._inflater.finish())
        if self._unfinished:
            raise ProtocolError(CloseCode.INVALID_PAYLOAD_DATA, 'text is not valid UTF-8')
        return bytes(self._content)

    def _append(self, content: bytes) -> None:
        if self._checks_text:
            try:
                self._unfinished = unfinished_character(self._unfinished + content)
            except UnicodeDecodeError:
                reason = 'text is not valid UTF-8'
                raise ProtocolError(CloseCode.INVALID_PAYLOAD_DATA, reason) from None
        self._content += content

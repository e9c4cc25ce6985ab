"""The wire format of publications for connections of the client protocol."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag, auto
from functools import cache

from ws4redis.broker.channels import Audience
from ws4redis.broker.client_names import ClientName, client_name
from ws4redis.broker.history import Kind
from ws4redis.hub.publication import Publication, Published, described
from ws4redis.protocol.client.data import data_of
from ws4redis.protocol.client.replies import (
    PING,
    Raw,
    encode_frame,
    encode_publication,
    encode_publication_push,
)
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.wire import WireFormat


class Forms(Flag):
    """How a connection calls broadcasts: with the audience, without it, both, or not at all yet."""

    LONG = auto()
    SHORT = auto()


NO_FORM = Forms(0)


def form_of(name: ClientName) -> Forms | None:
    """Return how a client names a broadcast; None for other channels, which have one name."""
    if name.audience is not Audience.BROADCAST:
        return None
    return Forms.SHORT if name.is_short else Forms.LONG


def encoded(publication: Publication, *, as_text: bool = False) -> Raw:
    """Return a publication as it stands in replies and pushes; ``as_text`` whatever its kind."""
    position = publication.position
    is_json = publication.kind is Kind.JSON and not as_text
    data = data_of(publication.payload, is_json=is_json)
    return encode_publication(data, None if position is None else position.offset)


def encoded_as_text(publication: Publication) -> Raw:
    return encoded(publication, as_text=True)


class ClientWire(WireFormat):
    """Encode publications as pushes, and anything else as ``base`` does.

    Made by :func:`client_wire`. The name in a push is the one by which the client knows the
    channel. A client that uses both forms gets a push for each, and passes over the one that it
    does not know: that is rare, and framed once for all of its kind.
    """

    __slots__ = ('_are_short', '_as_text', '_prefix', 'base', 'forms')

    def __init__(
        self, base: WireFormat, prefix: str, forms: Forms, *, as_text: bool = False
    ) -> None:
        self.base = base
        self.forms = forms
        self._as_text = as_text
        self._prefix = prefix
        self._are_short = [form is Forms.SHORT for form in Forms if form in forms] or [False]

    def encode_message(self, payload: bytes, opcode: Opcode | None = None) -> bytes:
        return self.base.encode_message(payload, opcode)

    def unit_ends(self, data: bytes | memoryview) -> Iterable[int]:
        return self.base.unit_ends(data)

    def encode(self, published: Published, channel: bytes) -> bytes:  # type: ignore[override]
        text = channel.decode(errors='replace')
        names = [
            client_name(text, prefix=self._prefix, is_short=is_short)
            for is_short in self._are_short
        ]
        content = encoded(described(published), as_text=self._as_text)
        pushes = [encode_publication_push(name, content) for name in dict.fromkeys(names)]
        return self.base.encode_message(encode_frame(pushes), Opcode.TEXT)

    def encode_ping(self) -> bytes:
        return self.base.encode_message(PING, Opcode.TEXT)

    def with_form(self, form: Forms) -> ClientWire:
        """Return the format for a client that uses one more form."""
        if form in self.forms:
            return self
        return client_wire(self.base, self._prefix, self.forms | form, as_text=self._as_text)


@cache
def client_wire(
    base: WireFormat, prefix: str, forms: Forms = NO_FORM, *, as_text: bool = False
) -> ClientWire:
    """Return the wire format for these parameters: for equal parameters the same object."""
    return ClientWire(base, prefix, forms, as_text=as_text)

"""One canonical binary form for everything that is said between parties, and what of it is signed.

A message is a frozen attrs class; its annotations are the closed schema. The bytes are

    u32 length of the header | header: msgpack [version, kind, [field, ...]] | raw bytes of the arrays, in field order

An array stands in the header as its shape only: the dtype is the annotation's, little-endian. Decoding is strict: exact
number of fields, exact types, no trailing bytes, no NaN among the scalars (what arrays hold is the validator's to
judge), and the header must be the very bytes that encoding gives again, so one message has one form and a signature
over it has one meaning. Every limit of msgpack is set, because the
defaults let a megabyte of empty containers cost half a second and 73 MB.
"""

from __future__ import annotations

import enum
import math
import struct
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs
import msgpack
import numpy as np
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from scarcity.errors import CodecError, LocalError
from scarcity.federation.packets import KINDS, Body, Header, Packet, digest_of

VERSION = 1
Message = TypeVar("Message")
_LENGTH = struct.Struct("<I")
_MAX_DIMENSIONS = 2


@attrs.frozen
class CodecLimits:
    """What a decoder accepts before it allocates anything.

    Attributes:
        message_bytes: whole message. The default holds a vector of 10^6 int64 twice over.
        header_bytes: the msgpack part. A roster of 10,000 members takes about 1 MB.
        items: elements of one tuple.
        text_bytes: one string or byte string inside the header.
    """

    message_bytes: int = 16 << 20
    header_bytes: int = 4 << 20
    items: int = 65_536
    text_bytes: int = 4 << 20


class _Arrays:
    """The raw tail of a message: array bytes in field order."""

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self.chunks: list[bytes] = []
        self._data = memoryview(data)
        self._at = 0

    def put(self, array: np.ndarray[Any, Any]) -> None:
        self.chunks.append(array.tobytes())

    def take(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        size = math.prod(shape) * dtype.itemsize
        if size > len(self._data) - self._at:
            raise CodecError(f"array of shape {shape} needs {size} bytes, {len(self._data) - self._at} are left")
        chunk = self._data[self._at : self._at + size]
        self._at += size
        try:
            return np.frombuffer(chunk, dtype=dtype).reshape(shape)
        except ValueError:  # (0, 2**63) holds nothing, and numpy cannot hold it either
            raise CodecError(f"array of shape {shape} is beyond what numpy can address") from None

    def finish(self) -> None:
        if self._at != len(self._data):
            raise CodecError(f"{len(self._data) - self._at} bytes after the last array")


@attrs.frozen
class _Coder:
    """How values of one annotation become msgpack values and come back."""

    pack: Callable[[Any, _Arrays], Any]
    unpack: Callable[[Any, _Arrays], Any]


def _scalar(kind: type) -> _Coder:
    def check(value: Any, _arrays: _Arrays) -> Any:
        # The exact type, because bool is an int in Python and would be a second form of 0 and 1.
        if type(value) is not kind:
            raise CodecError(f"expected {kind.__name__}, got {type(value).__name__}")
        if isinstance(value, float) and math.isnan(value):
            raise CodecError("NaN is not a value of the wire format")
        return value

    return _Coder(check, check)


def _enumeration(kind: type[enum.Enum]) -> _Coder:
    def unpack(value: Any, _arrays: _Arrays) -> Any:
        # Never the repr of what a peer sent: a list nested 1000 deep raises RecursionError in it.
        if type(value) is not str:
            raise CodecError(f"expected text for {kind.__name__}, got {type(value).__name__}")
        try:
            return kind(value)
        except ValueError:
            raise CodecError(f"{value[:40]!r} is no {kind.__name__}") from None

    return _Coder(lambda value, _arrays: value.value, unpack)


def _array(hint: Any) -> _Coder:
    dtype = np.dtype(typing.get_args(typing.get_args(hint)[1])[0]).newbyteorder("<")

    def pack(value: Any, arrays: _Arrays) -> Any:
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim > _MAX_DIMENSIONS:
            raise CodecError(f"expected an array of {dtype}, got {getattr(value, 'dtype', type(value).__name__)}")
        arrays.put(value)
        return list(value.shape)

    def unpack(value: Any, arrays: _Arrays) -> Any:
        sound = isinstance(value, list) and len(value) <= _MAX_DIMENSIONS
        if not sound or any(type(size) is not int or size < 0 for size in value):
            raise CodecError("expected the shape of an array")
        return arrays.take(dtype, tuple(value))

    return _Coder(pack, unpack)


def _sequence(item: _Coder) -> _Coder:
    def pack(value: Any, arrays: _Arrays) -> Any:
        return [item.pack(part, arrays) for part in value]

    def unpack(value: Any, arrays: _Arrays) -> Any:
        if not isinstance(value, list):
            raise CodecError(f"expected a list, got {type(value).__name__}")
        return tuple(item.unpack(part, arrays) for part in value)

    return _Coder(pack, unpack)


def _fixed(items: list[_Coder]) -> _Coder:
    def pack(value: Any, arrays: _Arrays) -> Any:
        return [item.pack(part, arrays) for item, part in zip(items, value, strict=True)]

    def unpack(value: Any, arrays: _Arrays) -> Any:
        if not isinstance(value, list) or len(value) != len(items):
            raise CodecError(f"expected a list of {len(items)}")
        return tuple(item.unpack(part, arrays) for item, part in zip(items, value, strict=True))

    return _Coder(pack, unpack)


def _optional(inner: _Coder) -> _Coder:
    return _Coder(
        lambda value, arrays: None if value is None else inner.pack(value, arrays),
        lambda value, arrays: None if value is None else inner.unpack(value, arrays),
    )


def _record(kind: type) -> _Coder:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in attrs.fields(kind)]
    fields = _fixed([_coder(hints[name]) for name in names])

    def pack(value: Any, arrays: _Arrays) -> Any:
        if type(value) is not kind:
            raise CodecError(f"expected {kind.__name__}, got {type(value).__name__}")
        return fields.pack([getattr(value, name) for name in names], arrays)

    def unpack(value: Any, arrays: _Arrays) -> Any:
        parts = fields.unpack(value, arrays)
        try:
            return kind(**dict(zip(names, parts, strict=True)))
        except (LocalError, ValueError, TypeError) as error:  # the class's own validators
            raise CodecError(f"{kind.__name__}: {error}") from None

    return _Coder(pack, unpack)


def _coder(hint: Any) -> _Coder:
    """Return the coder of one annotation; an annotation outside the closed set is our own bug."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is np.ndarray:
        return _array(hint)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return _sequence(_coder(args[0]))
        return _fixed([_coder(arg) for arg in args])
    if origin in (types.UnionType, typing.Union):
        inner = [arg for arg in args if arg is not type(None)]
        assert len(inner) == 1, f"only T | None is a union of the wire format, not {hint}"
        return _optional(_coder(inner[0]))
    if hint in (int, float, str, bytes, bool):
        return _scalar(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumeration(hint)
    assert isinstance(hint, type), f"{hint} is not of the wire format"
    return _record(hint)


class Codec(Generic[Message]):
    """Encode and decode the messages of one closed table.

    Args:
        kinds: wire name -> frozen attrs class.
        version: first field of every header; another version is refused.
        limits: bounds of the decoder.
    """

    def __init__(self, kinds: Mapping[str, type[Message]], *, version: int, limits: CodecLimits | None = None) -> None:
        self._version = version
        self._limits = limits or CodecLimits()
        self._names = {kind: name for name, kind in kinds.items()}
        self._coders = {name: _record(kind) for name, kind in kinds.items()}

    def kind_of(self, message: Message) -> str:
        """Return the wire name of a message's class."""
        return self._names[type(message)]

    def encode(self, message: Message) -> bytes:
        """Return the canonical bytes.

        Raises:
            CodecError: a field does not have its annotated type (our own bug: peers cannot cause it).
        """
        name, arrays = self.kind_of(message), _Arrays()
        header = msgpack.packb([self._version, name, self._coders[name].pack(message, arrays)])
        return b"".join([_LENGTH.pack(len(header)), header, *arrays.chunks])

    def decode(self, data: bytes | memoryview) -> Message:
        """Return the message of canonical bytes; arrays are read-only views of `data`.

        Raises:
            CodecError: anything else than the canonical bytes of a known message.
        """
        view = memoryview(data)
        header = self._header(view)
        version, name, fields = self._parts(header)
        # The exact type: True and 1.0 equal 1 and would be second forms of it.
        if type(version) is not int or version != self._version:
            raise CodecError(f"not the version {self._version} spoken here")
        if type(name) is not str or name not in self._coders:
            raise CodecError(f"unknown message {name[:40]!r}" if type(name) is str else "a kind that is no text")
        arrays = _Arrays(view[_LENGTH.size + len(header) :])
        message = self._coders[name].unpack(fields, arrays)
        arrays.finish()
        if msgpack.packb([version, name, fields]) != header:
            raise CodecError(f"{name}: not the canonical form")
        return typing.cast("Message", message)

    def _header(self, view: memoryview) -> bytes:
        if not _LENGTH.size <= len(view) <= self._limits.message_bytes:
            raise CodecError(f"a message of {len(view)} bytes; allowed are 4 to {self._limits.message_bytes}")
        (length,) = _LENGTH.unpack_from(view)
        if length > min(self._limits.header_bytes, len(view) - _LENGTH.size):
            raise CodecError(f"a header of {length} bytes does not fit")
        return bytes(view[_LENGTH.size : _LENGTH.size + length])

    def _parts(self, header: bytes) -> list[Any]:
        try:
            parts = msgpack.unpackb(
                header,
                raw=False,
                use_list=True,
                max_str_len=self._limits.text_bytes,
                max_bin_len=self._limits.text_bytes,
                max_array_len=self._limits.items,
                max_map_len=0,
                max_ext_len=0,
            )
        except (ValueError, msgpack.UnpackException, RecursionError) as error:
            raise CodecError(f"not msgpack within the limits: {type(error).__name__}") from None
        if not isinstance(parts, list) or len(parts) != 3:
            raise CodecError("expected [version, kind, fields]")
        return parts


@attrs.frozen
class _Envelope:
    """What stands before a packet's body."""

    header: Header
    signature: bytes


_BODIES: Codec[Body] = Codec(KINDS, version=VERSION)
_ENVELOPES: Codec[_Envelope] = Codec({"packet": _Envelope}, version=VERSION, limits=CodecLimits(message_bytes=4096))


def kind_of(body: Body) -> str:
    """Return the wire name of a body."""
    return _BODIES.kind_of(body)


def encode_body(body: Body) -> bytes:
    """Return the canonical bytes of a body."""
    return _BODIES.encode(body)


def encode_packet(packet: Packet) -> bytes:
    """Return u32 length of the envelope | envelope | body, both canonical."""
    envelope = _ENVELOPES.encode(_Envelope(packet.header, packet.signature))
    return b"".join([_LENGTH.pack(len(envelope)), envelope, encode_body(packet.body)])


def decode_packet(data: bytes | memoryview) -> Packet:
    """Return the packet of canonical bytes.

    Raises:
        CodecError: anything else; no other error escapes, whatever it is given.
    """
    if not isinstance(data, bytes | memoryview):
        raise CodecError(f"a packet is bytes, not {type(data).__name__}")
    view = memoryview(data)
    if len(view) < _LENGTH.size:
        raise CodecError(f"a packet of {len(view)} bytes")
    start = _LENGTH.size + _LENGTH.unpack_from(view)[0]
    if start > len(view):
        raise CodecError("the envelope is cut off")
    envelope = _ENVELOPES.decode(view[_LENGTH.size : start])
    return Packet(envelope.header, _BODIES.decode(view[start:]), envelope.signature)


def body_digest(body: Body) -> bytes:
    """Return the 32-byte digest by which acknowledgements and signatures name a body."""
    return digest_of(encode_body(body))


def digest_in(packet: Packet) -> bytes:
    """Return the `body_digest` of a packet's body, worked out once a packet."""
    if not packet.known:
        packet.known.append(body_digest(packet.body))
    return packet.known[0]


def _signed_bytes(header: Header, body: Body, digest: bytes) -> bytes:
    place = [header.federation, header.epoch, header.scope, header.round_id, kind_of(body), header.sender]
    return b"scarcity.packet" + bytes(msgpack.packb([*place, digest]))


def sign_packet(header: Header, body: Body, key: SigningKey) -> Packet:
    """Return the packet with its author's signature over place and body."""
    digest = body_digest(body)
    packet = Packet(header, body, key.sign(_signed_bytes(header, body, digest)).signature)
    packet.known.append(digest)
    return packet


def signature_holds(packet: Packet, public_key: bytes) -> bool:
    """Say whether the owner of the key (Ed25519) signed this body for this place."""
    try:
        signed = _signed_bytes(packet.header, packet.body, digest_in(packet))
        VerifyKey(public_key).verify(signed, packet.signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True

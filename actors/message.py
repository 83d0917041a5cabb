"""What can be said: frozen attrs classes under a registered name, what the runtime itself says, and both as bytes.

The name, not the Python path, is what the bytes carry; so it is unique in a process. In process a message is passed by
reference, and being frozen is what makes that safe.

The bytes are one msgpack value. None, bool, int of 64 bits, float, str, bytes and dict with str keys stand for
themselves; an array of msgpack is always one of these, told by its first element:

| first | then | is |
|---|---|---|
| 0 | the elements | a list |
| 1 | the elements | a tuple |
| 2 | the name, the fields in order | a message |
| 3 | dtype, little-endian bytes, the shape | a numpy array; decoded without a copy, read only |
| 4 | the address | a reference |

Types are exact and nothing else is accepted. No pickle, no extension types: bytes can name only what was registered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import attrs
import msgpack
import numpy as np

from actors.address import ActorRef
from actors.errors import ActorError, BadMessage, BadSetting

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
_LIST, _TUPLE, _MESSAGE, _ARRAY, _REF = range(5)
_SCALARS = frozenset({type(None), bool, int, float, bytes})
_PLAIN = _SCALARS | {str}
# No objects, no dates, no strings, and no bool: a byte that is neither 0 nor 1 would be a bool that is neither.
_DTYPES = frozenset({"<f8", "<f4", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1"})
_DIMENSIONS_MAX = 8
_registry: dict[str, type] = {}
_names: dict[type, str] = {}
_reliable: set[type] = set()
_local: set[type] = set()
_shapes: dict[type, _Shape] = {}
registry: Mapping[str, type] = MappingProxyType(_registry)
"""The messages of this process by name; read only."""


class _Shape(NamedTuple):
    """What a message is made of; a field with `init=False` follows from the others and does not travel."""

    names: tuple[str, ...]
    arguments: tuple[str, ...] | None  # of the constructor, `None` when all are by position

    @classmethod
    def of(cls, kind: type) -> _Shape:
        fields = [field for field in attrs.fields(kind) if field.init]
        by_name = any(field.kw_only for field in fields)
        names = tuple(field.name for field in fields)
        return cls(names, tuple(str(field.alias) for field in fields) if by_name else None)


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def message(name: str, *, reliable: bool = False, local: bool = False) -> Callable[[type[T]], type[T]]:
    """Make the class a frozen attrs class and register it under `name` (lower case, parts joined by dots).

    Args:
        name: what the bytes carry, unique in the process.
        reliable: told to another node, it goes once only and in order across lost links, instead of at most once. An
            ask ends with its link, whatever it carries.
        local: it is said within a node only; a node that sends one to another breaks the protocol.

    Raises:
        BadSetting: the name is malformed, or another class has it.
    """
    if not _NAME.fullmatch(name):
        raise BadSetting(f"message name: expected lower case parts joined by dots, got {name!r}")

    def register(cls: type[T]) -> type[T]:
        known = _registry.get(name)
        # A reloaded module defines the same class again; anything else is a clash that a wire could not tell apart.
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise BadSetting(f"message name {name!r} belongs to {known.__module__}.{known.__qualname__}")
        frozen = attrs.frozen(cls)
        if known is not None:
            del _names[known], _shapes[known]
            _reliable.discard(known)
            _local.discard(known)
        _registry[name] = frozen
        _names[frozen] = name
        _shapes[frozen] = _Shape.of(frozen)
        if reliable:
            _reliable.add(frozen)
        if local:
            _local.add(frozen)
        return frozen

    return register


def is_message(cls: type) -> bool:
    """Return whether the class was made by `@message`."""
    return cls in _names


def message_name(cls: type) -> str | None:
    """Return the name that `@message` registered, `None` when it did not make the class."""
    return _names.get(cls)


def is_reliable(cls: type) -> bool:
    """Return whether the message is told to other nodes over the reliable channel."""
    return cls in _reliable


def is_local(cls: type) -> bool:
    """Return whether the message stays on its node."""
    return cls in _local


@message("actors.down", local=True)
class Down:
    """An actor that was monitored, or spawned by this one and failed, is gone; it comes once, and not for a restart.

    Attributes:
        ref: who is gone.
        reason: `stopped`, `unknown` (nobody lived there), or `failed: ` and the error. Of an actor on another node it
            may be `link lost: ` and why, and of an error only the class is told.
    """

    ref: ActorRef
    reason: str


@attrs.frozen
class WireLimits:
    """What an encoder lets out and a decoder lets in. Each is checked before anything of that size is allocated.

    Attributes:
        message_bytes: the whole. The default is the frame that a link accepts.
        text_bytes: one string, in UTF-8.
        items: elements of one list, tuple or dict, or fields of a message. msgpack reserves the room of every open
            container at once, a thousand deep, so this is what bounds a bomb: 1,024 make it 8 MB.
        nodes: elements of all of msgpack's containers together, and one for each. Four megabytes of empty dicts would
            be 270 MB.
        depth: containers within containers.
    """

    message_bytes: int = 4 << 20
    text_bytes: int = 1 << 16
    items: int = 1024
    nodes: int = 16_384
    depth: int = 16


_DEFAULT = WireLimits()


def encode(value: object, limits: WireLimits = _DEFAULT) -> bytes:
    """Return a message, or any value that a message may hold, as bytes.

    Raises:
        BadMessage: a type that does not travel, or beyond the limits.
    """
    try:
        data: bytes = msgpack.packb(_Encoder(limits).lower(value, limits.depth), use_bin_type=True)
    except (ValueError, OverflowError) as error:  # an integer of more than 64 bits, a lone surrogate
        raise BadMessage(f"cannot be encoded: {error}") from error
    if len(data) > limits.message_bytes:
        raise BadMessage(f"cannot be encoded: {len(data)} bytes, at most {limits.message_bytes} may travel")
    return data


def decode(
    data: bytes | memoryview, resolve: Callable[[str], ActorRef] | None = None, limits: WireLimits = _DEFAULT
) -> object:
    """Return what `encode` was given: an equal value of the same types.

    Args:
        data: whatever a peer sent; a memoryview is one of bytes.
        resolve: makes a reference of an address; without it references are refused.
        limits: checked before anything is allocated.

    Raises:
        BadMessage: whatever is wrong with the bytes.
    """
    if len(data) > limits.message_bytes:
        raise BadMessage(f"{len(data)} bytes, at most {limits.message_bytes} are read")
    decoder = _Decoder(limits, resolve)
    try:
        return decoder.lift(decoder.parse(data), limits.depth)
    except (ValueError, TypeError, OverflowError, ActorError, msgpack.UnpackException) as error:
        raise error if isinstance(error, BadMessage) else BadMessage(f"not a message: {error}") from error


class _Encoder:
    """Turns a value into what msgpack writes, and counts."""

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._nodes = 0

    def lower(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if isinstance(value, str) and kind is str:
            if len(value.encode()) > self._limits.text_bytes:
                raise BadMessage(f"a string of more than {self._limits.text_bytes} bytes")
            return value
        if isinstance(value, np.ndarray) and kind is np.ndarray:
            return self._counted(self._array(value))
        if isinstance(value, ActorRef):
            return self._counted([_REF, str(value.address)])
        if depth == 0:
            raise BadMessage(f"more than {self._limits.depth} containers within each other")
        return self._container(value, depth - 1)

    def _container(self, value: object, depth: int) -> object:
        kind = type(value)
        if isinstance(value, dict) and kind is dict:
            self._count(len(value), len(value))
            if not all(type(key) is str for key in value):
                raise BadMessage("a dict may have keys of type str only")
            return {self.lower(key, depth): self.lower(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple) and kind in (list, tuple):
            self._count(len(value), len(value) + 1)
            return [_LIST if kind is list else _TUPLE, *(self.lower(item, depth) for item in value)]
        name = _names.get(kind)
        if name is None:
            raise BadMessage(f"{kind.__module__}.{kind.__qualname__} does not travel, neither as a message nor within")
        fields = _shapes[kind].names
        self._count(len(fields), len(fields) + 2)
        written: list[object] = [_MESSAGE, name]
        for field in fields:
            item = getattr(value, field)
            written.append(item if type(item) in _SCALARS else self.lower(item, depth))
        return written

    def _array(self, value: np.ndarray[Any, Any]) -> list[object]:
        dtype = value.dtype.newbyteorder("<")
        if dtype.str not in _DTYPES or value.ndim > _DIMENSIONS_MAX:
            raise BadMessage(f"an array of {value.dtype} in {value.ndim} dimensions does not travel")
        flat = np.ascontiguousarray(value, dtype).reshape(-1)  # in place where it can be; msgpack makes the copy
        return [_ARRAY, dtype.str, flat.view(np.uint8).data, *value.shape]

    def _counted(self, written: list[object]) -> list[object]:
        self._count(0, len(written))
        return written

    def _count(self, items: int, written: int) -> None:
        self._nodes += written + 1
        if items > self._limits.items or self._nodes > self._limits.nodes:
            raise BadMessage(f"more than {self._limits.items} elements, or {self._limits.nodes} in all")


class _Decoder:
    """Reads msgpack within the limits, and turns what it holds into values."""

    def __init__(self, limits: WireLimits, resolve: Callable[[str], ActorRef] | None) -> None:
        self._limits = limits
        self._resolve = resolve
        self._nodes = 0

    def parse(self, data: bytes | memoryview) -> object:
        limits = self._limits
        value: object = msgpack.unpackb(
            data,
            raw=False,
            list_hook=self._counted,
            object_pairs_hook=self._pairs,
            max_str_len=limits.text_bytes,
            max_bin_len=limits.message_bytes,
            max_array_len=limits.items + 2 + _DIMENSIONS_MAX,  # the first element, and a name or a dtype and a shape
            max_map_len=limits.items,
            max_ext_len=0,
        )
        return value

    def lift(self, value: object, depth: int) -> object:
        if isinstance(value, dict):
            self._deeper(depth)
            return {key: self.lift(item, depth - 1) for key, item in value.items()}
        if not isinstance(value, list):
            if type(value) is not str and type(value) not in _SCALARS:
                raise BadMessage(f"{type(value).__name__} is no part of a message")
            return value
        tag, rest = (value[0], value[1:]) if value and type(value[0]) is int else (None, [])
        if tag == _ARRAY:
            return _array(*rest)
        if tag == _REF:
            return self._reference(*rest)
        self._deeper(depth)
        if tag in (_LIST, _TUPLE):
            items = self._all(rest, depth - 1)
            return items if tag == _LIST else tuple(items)
        if tag == _MESSAGE and rest:
            return self._message(rest[0], self._all(rest[1:], depth - 1))
        raise BadMessage("an array of unknown kind")

    def _all(self, items: list[object], depth: int) -> list[object]:
        return [item if type(item) in _PLAIN else self.lift(item, depth) for item in items]

    def _message(self, name: object, values: list[object]) -> object:
        cls = _registry.get(name) if isinstance(name, str) else None
        if cls is None:
            raise BadMessage(f"no message has the name {name!r:.80}")
        names, arguments = _shapes[cls]
        if len(names) != len(values):
            raise BadMessage(f"{name} has {len(names)} fields, got {len(values)}")
        try:
            return cls(*values) if arguments is None else cls(**dict(zip(arguments, values, strict=True)))
        except Exception as error:  # a message's own validators and converters may raise anything
            raise BadMessage(f"{name} refuses its fields: {error!r:.200}") from error

    def _reference(self, address: object) -> ActorRef:
        if self._resolve is None or not isinstance(address, str):
            raise BadMessage("a reference where none can be resolved")
        return self._resolve(address)

    def _deeper(self, depth: int) -> None:
        if depth == 0:
            raise BadMessage(f"more than {self._limits.depth} containers within each other")

    def _counted(self, items: list[object]) -> list[object]:
        self._nodes += len(items) + 1
        if self._nodes > self._limits.nodes:
            raise BadMessage(f"more than {self._limits.nodes} elements in all")
        return items

    def _pairs(self, pairs: list[tuple[object, object]]) -> dict[object, object]:
        self._counted([*pairs])
        found = dict(pairs)
        if len(found) != len(pairs) or not all(type(key) is str for key in found):
            raise BadMessage("a dict with a key twice, or a key that is no string")
        return found


def _array(dtype: object, data: object, *shape: object) -> np.ndarray[Any, Any]:
    sizes = [size for size in shape if type(size) is int and size >= 0]
    if dtype not in _DTYPES or type(data) is not bytes or len(sizes) != len(shape) or len(sizes) > _DIMENSIONS_MAX:
        raise BadMessage("an array of unknown dtype, or without bytes or shape")
    return np.frombuffer(data, dtype=np.dtype(str(dtype))).reshape(sizes)  # a ValueError when the bytes do not fit

"""What is said in a secure sum, as frozen values, and its one binary form.

Members are u32 positions in the config's sorted participants. A table with one row per member is a two-dimensional
array of bytes whose rows follow the positions, so nothing names a member twice. `Reveal` has exactly one slot per
peer and no field that says which kind of share is in it: both shares of one peer cannot be expressed.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.federation.codec import Codec
from scarcity.federation.secure_aggregation.config import RoundSumConfig

Members = NDArray[np.uint32]
Rows = NDArray[np.uint8]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SHARE_BYTES: Final = 34
BOX_BYTES: Final = 2 * SHARE_BYTES + 16
_same_array = attrs.cmp_using(eq=np.array_equal)


def _sized(size: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[bytes], value: bytes) -> None:
        if len(value) != size:
            raise ValueError(f"{field.name} has {len(value)} bytes, expected {size}")

    return check


def _rows(width: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[Rows], value: Rows) -> None:
        if value.ndim != 2 or value.shape[1] != width:
            raise ValueError(f"{field.name} has shape {value.shape}, expected (members, {width})")

    return check


def _increasing(_instance: Any, field: attrs.Attribute[Members], value: Members) -> None:
    if value.ndim != 1 or (value[1:] <= value[:-1]).any():
        raise ValueError(f"{field.name} must be positions in increasing order")


@attrs.frozen
class SumConfigMessage:
    """S->P: open a sum. The coordinator signs the config's canonical bytes."""

    config: RoundSumConfig
    signature: bytes = attrs.field(validator=_sized(SIGNATURE_BYTES))


@attrs.frozen
class Advertise:
    """P->S, R0: this sum's mask key, the commitment to the self-mask seed, and the channel key of the epoch."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    position: int
    mask_key: bytes = attrs.field(validator=_sized(KEY_BYTES))
    commitment: bytes = attrs.field(validator=_sized(KEY_BYTES))
    epoch_key: bytes = attrs.field(validator=_sized(KEY_BYTES))
    epoch_signature: bytes = attrs.field(validator=_sized(SIGNATURE_BYTES))
    signature: bytes = attrs.field(validator=_sized(SIGNATURE_BYTES))


@attrs.frozen
class Keys:
    """S->P, R1: U1 and what each of its members has advertised, one row each."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    members: Members = attrs.field(eq=_same_array, validator=_increasing)
    mask_keys: Rows = attrs.field(eq=_same_array, validator=_rows(KEY_BYTES))
    commitments: Rows = attrs.field(eq=_same_array, validator=_rows(KEY_BYTES))
    epoch_keys: Rows = attrs.field(eq=_same_array, validator=_rows(KEY_BYTES))
    epoch_signatures: Rows = attrs.field(eq=_same_array, validator=_rows(SIGNATURE_BYTES))

    def __attrs_post_init__(self) -> None:
        tables = (self.mask_keys, self.commitments, self.epoch_keys, self.epoch_signatures)
        if any(len(table) != len(self.members) for table in tables):
            raise ValueError("every table must have one row per member")


@attrs.frozen
class Shares:
    """P->S, R1: one box for each other member of U1, in the order of positions."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    position: int
    boxes: Rows = attrs.field(eq=_same_array, validator=_rows(BOX_BYTES))


@attrs.frozen
class Boxes:
    """S->P, R2: U2 and the box from each of its other members, in the order of positions."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    members: Members = attrs.field(eq=_same_array, validator=_increasing)
    boxes: Rows = attrs.field(eq=_same_array, validator=_rows(BOX_BYTES))


@attrs.frozen
class Masked:
    """P->S, R2: the masked input. `words` are the ring's little-endian bytes, bits / 8 for each coordinate."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    position: int
    bits: int
    dimension: int
    words: Rows = attrs.field(eq=_same_array)
    signature: bytes = attrs.field(validator=_sized(SIGNATURE_BYTES))

    def __attrs_post_init__(self) -> None:
        if self.bits not in (32, 64) or self.words.shape != (self.dimension * self.bits // 8,):
            raise ValueError(f"{self.words.shape} bytes are not {self.dimension} words of {self.bits} bits")


@attrs.frozen
class Survivors:
    """S->P, R3: U3, the members whose masked inputs have come."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    members: Members = attrs.field(eq=_same_array, validator=_increasing)


@attrs.frozen
class Confirm:
    """P->S, R3: one MAC for each other member of U3, in the order of positions."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    position: int
    macs: Rows = attrs.field(eq=_same_array, validator=_rows(KEY_BYTES))


@attrs.frozen
class Macs:
    """S->P, R4: the MACs for the recipient, with who made them."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    senders: Members = attrs.field(eq=_same_array, validator=_increasing)
    macs: Rows = attrs.field(eq=_same_array, validator=_rows(KEY_BYTES))

    def __attrs_post_init__(self) -> None:
        if len(self.macs) != len(self.senders):
            raise ValueError("expected one MAC per sender")


@attrs.frozen
class Reveal:
    """P->S, R4: the share of one's own self-mask seed that one kept, and one share for each other member of U2."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    position: int
    own: bytes = attrs.field(validator=_sized(SHARE_BYTES))
    slots: Rows = attrs.field(eq=_same_array, validator=_rows(SHARE_BYTES))


@attrs.frozen
class Withdrawn:
    """P->S: the sender gives the sum up, so nobody need wait for it. `reason` is the name of a `Reason`."""

    ctx: bytes = attrs.field(validator=_sized(KEY_BYTES))
    position: int
    reason: str


FromClient = Advertise | Shares | Masked | Confirm | Reveal | Withdrawn
FromCoordinator = SumConfigMessage | Keys | Boxes | Survivors | Macs
SumMessage = FromClient | FromCoordinator

KINDS: Final[dict[str, type[SumMessage]]] = {
    "config": SumConfigMessage,
    "advertise": Advertise,
    "keys": Keys,
    "shares": Shares,
    "boxes": Boxes,
    "masked": Masked,
    "survivors": Survivors,
    "confirm": Confirm,
    "macs": Macs,
    "reveal": Reveal,
    "withdrawn": Withdrawn,
}
CODEC: Final[Codec[SumMessage]] = Codec(KINDS, version=1)


def encode(message: SumMessage) -> bytes:
    """Return the canonical bytes of a message."""
    return CODEC.encode(message)


def decode(data: bytes | memoryview) -> SumMessage:
    """Return the message of canonical bytes; CodecError for anything else."""
    return CODEC.decode(data)

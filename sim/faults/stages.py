"""What a client says in a round, in order, in every trust mode: the stages from which on it can fall silent."""

from __future__ import annotations

from typing import Final

from scarcity.errors import CodecError
from scarcity.federation.packets import Packet, Ready, Release, SecureSum, TrustedUpdate, TrustMode, Unprotected
from scarcity.federation.secure_aggregation import decode
from scarcity.federation.secure_aggregation.messages import Advertise, Confirm, Masked, Reveal, Shares

# Falling silent at a stage means that this and all later things are not said.
STAGES: Final[dict[TrustMode, tuple[type, ...]]] = {
    TrustMode.DISTRIBUTED: (Ready, Advertise, Shares, Masked, Confirm, Reveal),
    TrustMode.LOCAL: (Release,),
    TrustMode.CENTRAL: (TrustedUpdate,),
    TrustMode.NONE: (Unprotected,),
}


def stage_name(said: type) -> str:
    """Return the name of a stage, as plans write it: lower case."""
    return said.__name__.lower()


# Every stage of every mode, and for each the things that are not said once a client is silent from it on.
STAGE_NAMES: Final[tuple[str, ...]] = tuple(stage_name(said) for stages in STAGES.values() for said in stages)
STAGE_TYPES: Final[frozenset[type]] = frozenset(said for stages in STAGES.values() for said in stages)
UNSAID: Final[dict[str, frozenset[type]]] = {
    stage_name(said): frozenset(stages[index:]) for stages in STAGES.values() for index, said in enumerate(stages)
}


def said_in(packet: Packet) -> type:
    """Return what kind of thing a packet says: its body's class, or that of the secure sum's message inside."""
    body = packet.body
    if not isinstance(body, SecureSum):
        return type(body)
    try:
        return type(decode(body.payload))
    except CodecError:
        return SecureSum  # a liar's

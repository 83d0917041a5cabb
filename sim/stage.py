"""The one place that decides faults: who lies, who falls silent at which stage, how long a message takes.

Executors ask `passage` about every packet and do as it says. Who is doomed, and when, follows from the seed and the
client's id alone, whatever order packets come in.
"""

from __future__ import annotations

from typing import Final

import attrs

from scarcity.federation.packets import Packet, Ready, Release, SecureSum, TrustedUpdate, TrustMode, Unprotected
from scarcity.federation.secure_aggregation import decode
from scarcity.federation.secure_aggregation.messages import Advertise, Confirm, Masked, Reveal, Shares
from sim.plan import SwarmPlan

# What a client says in a round, in order: falling silent at a stage means that this and all later things are not said.
STAGES: Final[dict[TrustMode, tuple[type, ...]]] = {
    TrustMode.DISTRIBUTED: (Ready, Advertise, Shares, Masked, Confirm, Reveal),
    TrustMode.LOCAL: (Release,),
    TrustMode.CENTRAL: (TrustedUpdate,),
    TrustMode.NONE: (Unprotected,),
}


@attrs.frozen
class Silence:
    """From when on a client says nothing more."""

    round_id: int
    stage: type


class Stage:
    """Decides the faults of one plan.

    Attributes:
        fallen: clients that have fallen silent so far, with the stage's name.
    """

    def __init__(self, plan: SwarmPlan) -> None:
        self._latency_s = plan.latency_s
        self._stages = STAGES[plan.settings.mode]
        self._doomed = {name: silence for name in _client_ids(plan) if (silence := _silence_of(plan, name)) is not None}
        self.fallen: dict[str, str] = {}

    @property
    def doomed(self) -> dict[str, Silence]:
        """Clients that will fall silent, and when."""
        return dict(self._doomed)

    def passage(self, sender: str, packet: Packet) -> float | None:
        """Return after how many seconds a packet arrives, None if never."""
        silence = self._doomed.get(sender)
        if silence is not None and (sender in self.fallen or self._reached(packet, silence)):
            self.fallen.setdefault(sender, silence.stage.__name__.lower())
            return None
        return self._latency_s

    def _reached(self, packet: Packet, silence: Silence) -> bool:
        said = _said(packet)
        if said not in self._stages or packet.header.round_id < silence.round_id:
            return False
        late = packet.header.round_id > silence.round_id
        return late or self._stages.index(said) >= self._stages.index(silence.stage)


def _client_ids(plan: SwarmPlan) -> list[str]:
    return [party.id for party in plan.source.parties]


def _silence_of(plan: SwarmPlan, client_id: str) -> Silence | None:
    chance = plan.chance
    if chance.uniform("drop", client_id) >= plan.drop:
        return None
    stages = STAGES[plan.settings.mode]
    stage = stages[int(chance.uniform("drop stage", client_id) * len(stages))]
    return Silence(1 + int(chance.uniform("drop round", client_id) * plan.rounds), stage)


def _said(packet: Packet) -> type:
    """Return what kind of thing a packet says: its body's class, or that of the secure sum's message inside."""
    body = packet.body
    return type(decode(body.payload)) if isinstance(body, SecureSum) else type(body)

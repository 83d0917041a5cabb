"""The faults of a `SwarmPlan`: who falls silent at which stage, how long a message takes.

`sim.swarms.live` asks `passage` about every packet and does as it says. Who is doomed, and when, follows from the seed
and the client's id alone, whatever order packets come in. A `World` has `sim.faults.stage` instead, whose clients speak
again in the next round; here they are silent for good.
"""

from __future__ import annotations

import attrs

from scarcity.federation.packets import Packet
from sim.faults.stages import STAGES, said_in
from sim.swarms.plan import SwarmPlan


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

    def passage(self, sender: str, packet: Packet) -> float | None:
        """Return after how many seconds a packet arrives, None if never."""
        silence = self._doomed.get(sender)
        if silence is not None and (sender in self.fallen or self._reached(packet, silence)):
            self.fallen.setdefault(sender, silence.stage.__name__.lower())
            return None
        return self._latency_s

    def _reached(self, packet: Packet, silence: Silence) -> bool:
        said = said_in(packet)
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

"""A whole conversation of SSA-1 with fixed entropy, byte for byte: what another implementation has to say.

Four clients, two coordinates of 32 bits, one client falls silent after its shares. Every party's entropy is the stream
`entropy(id)` of `tests.secure_aggregation_world` and its identity `key_of(id)`. A line is

    who -> whom kind hex-of-the-message

in the order of sending. Rewrite after an intended change of the protocol, and read the diff:

    python -m tests.golden.test_secure_aggregation_transcript
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from scarcity.federation.secure_aggregation import CODEC, encode
from scarcity.federation.secure_aggregation.messages import Masked
from tests.secure_aggregation_world import CENTRE, World, play

GOLDEN = Path(__file__).with_name("ssa_transcript.txt")


def transcript() -> str:
    world = World(4, d=2, bits=32)
    coordinator = world.coordinator()
    lines = []

    def say(who: str, whom: str, message: object) -> list[object]:
        lines.append(f"{who} -> {whom} {CODEC.kind_of(message)}")
        lines.extend("    " + part for part in textwrap.wrap(encode(message).hex(), 112))
        return [message]

    def up(name: str, message: object) -> list[object]:
        return [] if name == "c02" and isinstance(message, Masked) else say(name, CENTRE, message)

    play(coordinator, world.clients(), world.inputs(), up=up, down=lambda name, m: say(CENTRE, name, m))
    result = coordinator.result
    assert result is not None
    lines.append(f"sum {result.vector.tolist()} of {', '.join(result.survivors)}")
    return "\n".join(lines) + "\n"


def test_the_conversation_is_the_golden_one() -> None:
    assert transcript().splitlines() == GOLDEN.read_text().splitlines()


if __name__ == "__main__":
    GOLDEN.write_text(transcript())

"""Hand packets over: to a member of this node by reference, to another node's as a parcel that the outbox has noted.

What cannot be handed over is counted and lost. That is no error: contributions are said again until they are
acknowledged, gossip repairs itself, and a stage of a secure sum goes on without who is silent.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from actors import ActorError, ActorSystem
from actors.address import SCHEME
from scarcity.errors import UnknownClientError
from scarcity.federation.packets import Packet
from scarcity.node.parcel import parcel_of
from scarcity.node.shell import Delivery

log = logging.getLogger("scarcity.node")

Note = Callable[[str, str, str, Packet, bytes], None]


class Post:
    """The post of one node.

    Args:
        system: where the node's members are actors under their own ids.
        node_of: member id -> the node that hosts it; UnknownClientError for a stranger.
        note: called with (sender, recipient, node, packet, its bytes) before a packet leaves the node. When it raises,
            the packet stays.

    Attributes:
        lost: reason -> packets that could not be handed over.
    """

    def __init__(self, system: ActorSystem, node_of: Callable[[str], str], note: Note) -> None:
        self._system = system
        self._node_of = node_of
        self._note = note
        self.lost: Counter[str] = Counter()

    def __call__(self, sender: str, to: str, packet: Packet) -> None:
        """Hand a packet over, or count it as lost."""
        try:
            node = self._node_of(to)
            if node == self._system.name:
                self._system.ref(to).tell(Delivery(sender, packet))
            else:
                self._ship(sender, to, node, packet)
        except (ActorError, UnknownClientError) as error:
            self.lost[f"not delivered: {type(error).__name__}"] += 1
            log.warning("%s to %s is not delivered: %s", sender, to, error)

    def _ship(self, sender: str, to: str, node: str, packet: Packet) -> None:
        parcel = parcel_of(packet)
        self._note(sender, to, node, packet, parcel.packet)
        self._system.ref(f"{SCHEME}{node}/{to}").tell(parcel, sender=self._system.ref(sender))

"""A listed node gone bad, with valid keys, speaks to a daemon: all is refused and counted, the round completes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import numpy as np
import pytest

from actors import remote_wire as wire
from actors.errors import LinkFull
from actors.links import TcpConfig, TcpTransport
from actors.message import encode
from scarcity.engine import OnlineDiscoveryEngine
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.codec import encode_packet, sign_packet
from scarcity.federation.packets import Header, Packet, Release, basket_scope
from scarcity.node.parcel import GossipParcel, Parcel
from scarcity.node.roles import form_of
from scarcity.node.setup.config import read_node_config
from scarcity.node.setup.deployment import Deployment, open_deployment
from scarcity.node.setup.directory import parse_address
from scarcity.node.shell import Ring
from tests.nodes_world import Daemon, Federation, Host, found, write_rows

SETTINGS = {"gossip_s": 0.3, "ready_s": 0.5, "close_s": 0.4, "deadline_s": 1.0, "stage_s": 0.5, "quorum": 0.5}
BASKET, NAME = "basket/a", "e0"


@attrs.frozen
class Evil:
    """A raw link of a node that hosts the client e0, whose words the honest daemons are told to take."""

    deployment: Deployment
    transport: TcpTransport

    def say(self, kind: object, to: str = BASKET, sender: str = NAME, node: str = "ha") -> None:
        self.transport.send(node, wire.TELL, wire.pack_route(to, sender), encode(kind), reliable=True)

    def release(self, **changed: object) -> Packet:
        """A contribution of e0 with its own valid signature, unless something of its place is changed."""
        place = Header("test", 1, basket_scope("a"), 1, NAME)
        federation = self.deployment.config.federation
        agent = FederationClientAgent(OnlineDiscoveryEngine(federation.schema), NAME, form_of(federation))
        assert agent.layout is not None
        body = Release(agent.layout.schema_hash, np.zeros(agent.layout.dimension, dtype=np.int64), 1)
        return sign_packet(attrs.evolve(place, **changed), body, self.deployment.member_keys[NAME])


@asynccontextmanager
async def gone_bad(federation: Federation) -> AsyncIterator[Evil]:
    deployment = open_deployment(read_node_config(federation.daemons["evil"].config), time.time())
    directory = deployment.directory
    host, port = deployment.config.listen
    key = directory.entry("evil").key
    tcp = TcpConfig("evil", directory.federation, key, directory.peers(), host=host, port=port)
    transport = TcpTransport(tcp, deployment.security())
    linked = anyio.Event()
    transport.attach(lambda *_: None, lambda node, up, _: linked.set() if up and node == "ha" else None)
    async with transport:
        transport.dial("ha", *parse_address(directory.entry("ha").address))
        with anyio.fail_after(20):
            await linked.wait()
        yield Evil(deployment, transport)


def federation_of(folder: Path) -> Federation:
    honest = Host("ha", (("a0", "a"), ("a1", "a"), ("a2", "a")), ("a",))
    hosts = [Host("hub", coordinator=True), honest, Host("evil", ((NAME, "a"),))]
    federation = found(folder, hosts, settings=SETTINGS, rounds=1000, interval_s=0.2)
    for number in range(3):
        write_rows(federation.daemons["ha"].folder / f"a{number}.csv", 0, 40, number)
    return federation


def lies(evil: Evil) -> None:
    """Say what no honest node says."""
    honest = evil.release()
    for other in ("a0", "coordinator", BASKET, "nobody"):
        evil.say(Parcel(encode_packet(honest)), sender=other)
        evil.say(GossipParcel(encode_packet(honest)), sender=other)
    for garbage in (b"", b"\x00", os.urandom(1000), encode_packet(honest)[:-1], b"\xff" * 100_000):
        evil.say(Parcel(garbage))
        evil.say(GossipParcel(garbage), to="a0")
    evil.say(Parcel(bytes((4 << 20) - 100)))
    for to in ("keeper", "nobody", "a0/child", "basket/z"):
        evil.say(Parcel(encode_packet(honest)), to=to)
    evil.say(Parcel(encode_packet(evil.release(epoch=9))))
    evil.say(Parcel(encode_packet(evil.release(federation="other"))))
    evil.say(Parcel(encode_packet(evil.release(sender="a1"))))


def local_words(evil: Evil) -> None:
    """Say what only an actor of the same process may say: the first of it ends the link."""
    for to in (BASKET, "a0", "keeper"):
        evil.say(Ring("close", 0.0), to=to)
        evil.transport.send("ha", wire.TELL, wire.pack_route(to, NAME), _like_delivery(), reliable=True)


def _like_delivery() -> bytes:
    """The bytes of a message that is for one process only, with text where its packet would be."""
    name, same_length = b"scarcity.delivery", b"scarcity.protocol"
    assert len(name) == len(same_length)
    return encode(Parcel(b"packet")).replace(same_length, name)


async def refused(daemon: Daemon, words: str, seconds: float = 5.0) -> bool:
    """Say whether the status comes to count a refusal with these words."""
    deadline = time.monotonic() + seconds
    while not any(words in reason for reason in daemon.status()["refusals"]):
        if time.monotonic() > deadline:
            return False
        await anyio.sleep(0.05)
    return True


async def model_after(federation: Federation, round_id: int) -> int:
    """Wait until the honest nodes hold the model of a later round, and return it."""
    honest = [federation.daemons[name] for name in ("ha", "hub")]

    def has_come() -> bool:
        return all(max(daemon.models(), default=0) > round_id for daemon in honest)

    await anyio.to_thread.run_sync(federation.wait, f"a model after round {round_id}", has_come, 30.0)
    return max(honest[0].models())


def flood(evil: Evil) -> int:
    """Say more than a node may say in a second, until its own side of the link is full; return how many words."""
    for number in range(20_000):
        try:
            evil.say(Parcel(b"flood %d" % number))
        except LinkFull:
            return number
    return 20_000


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the daemons are processes; what is ours is a raw link
async def test_nothing_that_a_listed_node_gone_bad_says_hurts_the_members_or_the_round(tmp_path: Path) -> None:
    federation = federation_of(tmp_path)
    honest, hub = federation.daemons["ha"], federation.daemons["hub"]
    honest.start()
    hub.start()
    try:
        async with gone_bad(federation) as evil:
            before = await model_after(federation, 0)
            forged = attrs.evolve(evil.release(round_id=before), signature=bytes(64))
            evil.say(Parcel(encode_packet(forged)))
            lies(evil)
            wanted = (
                "signature",
                "of epoch 9",
                "federation",
                "speaks for a0",
                "speaks for coordinator",
                "not a packet",
            )
            missing = [words for words in wanted if not await refused(honest, words)]
            local_words(evil)
            missing += [] if await refused(honest, "link: bad frame") else ["bad frame"]
            assert flood(evil) > 1000
            for number in range(3):
                write_rows(honest.folder / f"a{number}.csv", 40, 80, number)
            after = max(hub.models())
            await model_after(federation, after)
            status = honest.status()
    finally:
        for daemon in (honest, hub):
            if daemon.is_up:
                daemon.kill()
    assert not missing, status["refusals"]
    assert not status["failures"]
    assert "Traceback" not in honest.log

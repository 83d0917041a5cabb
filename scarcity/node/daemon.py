"""One host's daemon: its members as supervised actors, its links, its journal and outbox, and who may ask it things.

What happens, in order: keys and files are checked (`deployment`), journal and outbox are opened, the control socket
answers, links come up, members start from what the journal holds. A member whose journal or file fails starts again a
few times; when that does not help the daemon ends, with the cause, and the host's service manager decides. On
SIGTERM, SIGINT or `scarcity stop` members handle what waits, links say goodbye, files are closed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs

from actors import Actor, ActorRef, ActorSystem, Context, Down, Restart, handles
from actors.links import TcpConfig, TcpTransport
from scarcity.errors import ConfigError, FederationError
from scarcity.federation.codec import decode_packet
from scarcity.federation.effects import Core, Event, ModelAccepted, ModelMade, Reject
from scarcity.federation.packets import Model, Packet
from scarcity.node.deployment import Deployment, require_seated
from scarcity.node.directory import SignedDirectory, read_directory
from scarcity.node.events import describe
from scarcity.node.journal import SqliteJournal, member_journal
from scarcity.node.outbox import Outbox
from scarcity.node.post import Post
from scarcity.node.results import Results
from scarcity.node.roles import Roles, form_of
from scarcity.node.shell import CoreActor

log = logging.getLogger("scarcity.node")

JOURNAL, OUTBOX, CONTROL, MODEL = "journal.sqlite", "outbox.jsonl", "control.sock", "model"
_WATCH_S = 2.0  # how often the directory's file is looked at: a revocation is in force within this time
# A disk that is full for a minute must not end a node; one that stays full must.
_RESTART = Restart("transient", max_restarts=5, within_s=120.0)


class MemberActor(CoreActor):
    """A member of a daemon: started again from its journal when it fails."""

    restart = _RESTART


class Keeper(Actor):
    """Ends the daemon when a member is down for good: half a node is worse than one that is started again."""

    def __init__(self, members: tuple[ActorRef, ...], stop: Callable[[], None]) -> None:
        self._members = members
        self._stop = stop

    async def on_start(self, ctx: Context) -> None:
        """Watch all members."""
        for ref in self._members:
            ctx.monitor(ref)

    @handles(Down)
    def member_down(self, _down: Down, _ctx: Context) -> None:
        """Finish; the system's record of failures has the cause."""
        self._stop()


@attrs.define(eq=False)
class Member:
    """What the daemon knows of one of its members."""

    id: str
    core: Core | None = None
    ref: ActorRef | None = None
    started_at: float = 0.0


class NodeDaemon:
    """One node, from its files to its last goodbye.

    Args:
        deployment: checked config, directory and keys.
        wall: seconds since 1970, for expiry and records.
    """

    def __init__(self, deployment: Deployment, wall: Callable[[], float] = time.time) -> None:
        self._deployment = deployment
        self._wall = wall
        self._signed = deployment.signed
        self._members: dict[str, Member] = {}
        self._rejects: Counter[tuple[str, str]] = Counter()
        self._stop = anyio.Event()
        self._since = wall()
        self._transport: TcpTransport
        self._system: ActorSystem
        self._post: Post
        self._results: Results
        self._outbox: Outbox
        self._journal: SqliteJournal

    @property
    def stopping(self) -> bool:
        """Whether somebody has asked it to finish."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the daemon to finish; it drains first."""
        self._stop.set()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`.

        Raises:
            FederationError: what ended it, with the cause.
        """
        data_dir = self._deployment.config.data_dir
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._files(data_dir):
            async with self._linked() as system:
                await self._spawn_all(system)
                task_status.started()
                async with anyio.create_task_group() as group:
                    group.start_soon(self._watch_directory)
                    await self._stop.wait()
                    group.cancel_scope.cancel()
        if system.failures:
            failure = system.failures[-1]
            raise FederationError(f"member {failure.ref.address.path} is down: {failure.error}") from failure.error

    @contextmanager
    def _files(self, data_dir: Path) -> Any:
        self._journal = SqliteJournal(data_dir / JOURNAL)
        try:
            self._outbox = Outbox(data_dir / OUTBOX, self._deployment.link_key, self._wall)
            yield
        finally:
            self._journal.close()

    @asynccontextmanager
    async def _linked(self) -> AsyncIterator[ActorSystem]:
        """Bring up links and the system of actors on them."""
        config, directory = self._deployment.config, self._signed.directory
        host, port = config.listen
        tcp = TcpConfig(
            node=config.name,
            federation=directory.federation,
            key=directory.entry(config.name).key,
            peers=directory.peers(),
            host=host,
            port=port,
        )
        self._transport = TcpTransport(tcp, self._deployment.security())
        async with ActorSystem(config.name, transport=self._transport, on_link=self._on_link) as system:
            self._system = system
            self._post = Post(system, self._node_of, self._note)
            self._dial_all()
            log.info("%s listens on %s:%d", config.name, host, self._transport.port)
            yield system

    async def _spawn_all(self, system: ActorSystem) -> None:
        federation = self._deployment.config.federation
        roles = Roles(self._deployment, self._journal)
        models = self._accepted_models(roles)
        path = self._deployment.config.data_dir / MODEL
        self._results = Results(path, federation, form_of(federation), self._deployment.roster, models)
        for name in roles.member_ids:
            member = self._members[name] = Member(name)
            member.ref = await system.spawn(self._factory(member, roles), name=name)
        refs = tuple(member.ref for member in self._members.values() if member.ref is not None)
        await system.spawn(Keeper(refs, self.stop), name="keeper")

    def _factory(self, member: Member, roles: Roles) -> Callable[[], CoreActor]:
        def make() -> CoreActor:
            member.core = roles.core_of(member.id)
            member.started_at = self._wall()
            return MemberActor(
                member.id,
                member.core,
                post=self._post,
                journal=member_journal(self._journal, member.id),
                observe=self._observe,
                hosts=self._hosts,
            )

        return make

    def _accepted_models(self, roles: Roles) -> list[Model]:
        packets = (
            decode_packet(payload)
            for name in roles.member_ids
            for _, payload in member_journal(self._journal, name).entries("model")
        )
        return [packet.body for packet in packets if isinstance(packet.body, Model)]

    # Who is where.

    def _node_of(self, member_id: str) -> str:
        return self._signed.directory.node_of(member_id)

    def _hosts(self, node: str, member_id: str) -> bool:
        return self._signed.directory.hosts(node, member_id)

    def _dial_all(self) -> None:
        for entry in self._signed.directory.nodes:
            if entry.name != self._deployment.config.name and entry.address:
                host, _, port = entry.address.rpartition(":")
                self._transport.dial(entry.name, host.strip("[]"), int(port))

    async def _watch_directory(self) -> None:
        """Adopt a newer directory as soon as its file is there; links to who is not on it end at once."""
        path, operator_key = self._deployment.config.roster, self._deployment.config.federation.operator_key
        known = _stamp(path)
        while True:
            await anyio.sleep(_WATCH_S)
            stamp = _stamp(path)
            if stamp == known:
                continue
            known = stamp
            try:
                signed = read_directory(path, operator_key, self._wall())
                self._adopt(signed)
            except ConfigError as error:
                log.error("the directory in force stays that of epoch %d: %s", self._signed.directory.epoch, error)

    def _adopt(self, signed: SignedDirectory) -> None:
        directory = signed.directory
        if directory.epoch <= self._signed.directory.epoch:
            raise ConfigError(f"{self._deployment.config.roster}: epoch {directory.epoch} is not a newer one")
        require_seated(self._deployment.config, directory, self._deployment.link_key, self._deployment.member_keys)
        self._signed = signed
        self._transport.set_peers(directory.peers())
        self._dial_all()
        log.info("epoch %d is in force: %d nodes", directory.epoch, len(directory.nodes))

    # What is seen.

    def _note(self, sender: str, to: str, node: str, packet: Packet, data: bytes) -> None:
        self._outbox.record(sender, to, node, packet, len(data))

    def _on_link(self, node: str, up: bool, reason: str) -> None:
        log.info("%s: %s", node, "linked" if up else f"no link: {reason}")

    def _observe(self, member_id: str, what: Event | Reject) -> None:
        if isinstance(what, Reject):
            if self._rejects[what.peer, what.reason] == 0:
                log.warning("%s refuses %s: %s", member_id, what.peer, what.reason)
            self._rejects[what.peer, what.reason] += 1
            return
        if isinstance(what, ModelAccepted | ModelMade):
            self._keep(what.model)
        log.info("%s: %s", member_id, describe(what))


    def _keep(self, model: Model) -> None:
        try:
            self._results.keep(model)
        except ConfigError as error:  # the journal has the model: the file is written again with the next one
            log.error("the model file is not up to date: %s", error)


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino

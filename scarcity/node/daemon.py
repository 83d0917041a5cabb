"""One host's daemon: its members as supervised actors, its links, its journal and outbox, and who may ask it things.

What happens, in order: journal and outbox are opened, members start from what the journal holds, the control socket
answers, peers are dialed. A member whose journal or file of rows fails starts again a few times; when that does not
help the daemon ends, with the cause, and the host's service manager decides. When it is stopped, members handle what
waits, links say goodbye, files are closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from actors import Actor, ActorRef, ActorSystem, Context, Down, Restart, handles
from actors.errors import ActorStopped, BadSetting
from actors.links import TcpTransport
from scarcity.errors import CodecError, ConfigError, FederationError, LedgerCorrupt
from scarcity.federation.codec import decode_packet
from scarcity.federation.coordinator import CoordinatorCore
from scarcity.federation.effects import Event, ModelAccepted, ModelMade, Reject
from scarcity.federation.packets import Model
from scarcity.federation.recovery import MODEL as MODELS
from scarcity.node.journal import JournalStore, SqliteJournal, member_journal
from scarcity.node.memory import remember_ledgers
from scarcity.node.post import Post
from scarcity.node.results import Results
from scarcity.node.roles import Roles, form_of
from scarcity.node.setup.deployment import Deployment, require_listed, seated
from scarcity.node.setup.directory import SignedDirectory, instant, parse_address, read_directory
from scarcity.node.shell import CoreActor
from scarcity.node.watch.control import serve_control
from scarcity.node.watch.events import describe, round_of
from scarcity.node.watch.outbox import Outbox
from scarcity.node.watch.status import status_of
from scarcity.node.watch.view import Member, Seen, size_of

log = logging.getLogger("scarcity.node")

JOURNAL: Final = "journal.sqlite"
OUTBOX: Final = "outbox.jsonl"
CONTROL: Final = "control.sock"
MODEL: Final = "model"
_EPOCH: Final = "directory"  # kind of the journal's entries that hold a number of an epoch; members' kinds have a colon
_WATCH_S: Final = 2.0  # how often the directory's file is looked at: a revocation is in force within this time
# A disk that is full for a minute must not end a node; one that stays full must: it ends after some 90 s of pauses.
_RESTART: Final = Restart("transient", max_restarts=7, within_s=300.0, backoff_s=1.0, backoff_max_s=30.0, jitter=0.1)


class MemberActor(CoreActor):
    """A member of a daemon: started again from its journal when it fails."""

    restart = _RESTART


class KeeperActor(Actor):
    """Ends the daemon when a member is down for good: half a node is worse than one that is started again."""

    def __init__(self, members: tuple[ActorRef, ...], stop: Callable[[], None]) -> None:
        self._members = members
        self._stop = stop

    async def on_start(self, ctx: Context) -> None:
        """Watch all members."""
        for ref in self._members:
            ctx.monitor(ref)

    @handles(Down)
    def member_down(self, down: Down, _ctx: Context) -> None:
        """Finish if it failed; the system's record of failures has the cause. One that was stopped was meant to."""
        if down.reason.startswith("failed"):
            self._stop()


class NodeDaemon:
    """One node, from its files to its last goodbye; used once, in an event loop.

    Args:
        deployment: checked config, directory and keys.
        num_unlogged: how many log records were not written so far, for the status.
        wall: seconds since 1970, for expiry and records.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        num_unlogged: Callable[[], int] = lambda: 0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._deployment = deployment
        self._config = deployment.config
        self._num_unlogged = num_unlogged
        self._wall = wall
        self._signed = deployment.signed
        self._members: dict[str, Member] = {}
        self._seen = Seen(anyio.current_time)
        self._stop = anyio.Event()
        self._end: FederationError | None = None
        self._started_at = 0.0
        self._listening = ""
        self._system: ActorSystem
        self._transport: TcpTransport
        self._post: Post
        self._roles: Roles
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

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            FederationError: what kept it from starting, or ended it, with the cause.
        """
        try:
            await self._run()
        except ExceptionGroup as group:
            raise _first(group) from None

    async def _run(self) -> None:
        self._started_at = anyio.current_time()
        data_dir = self._config.data_dir
        with self._files(data_dir):
            async with self._linked() as system, anyio.create_task_group() as group:
                await self._spawn_all(system)
                await group.start(serve_control, data_dir / CONTROL, self._answer)
                # Not before: what a peer says to a member that is not there yet is lost.
                self._dial_all()
                group.start_soon(self._watch_directory)
                log.info("%s is up with %d members", self._config.name, len(self._members))
                await self._stop.wait()
                log.info("%s finishes", self._config.name)
                group.cancel_scope.cancel()
        if self._end is not None:
            raise self._end
        if system.failures:
            failure = system.failures[-1]
            raise FederationError(f"member {failure.ref.address.path} is down: {failure.error}") from failure.error

    @contextlib.contextmanager
    def _files(self, data_dir: Path) -> Iterator[None]:
        """Open what must survive a crash; whoever holds the journal is the node's only daemon."""
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._journal = SqliteJournal(data_dir / JOURNAL)
        except OSError as error:
            raise ConfigError(f"data_dir {data_dir}: {error.strerror}") from None
        with contextlib.closing(self._journal):
            remember_ledgers(self._journal, data_dir / JOURNAL, data_dir / OUTBOX, self._deployment.ledger_keys)
            self._remember_epoch(self._signed.directory.epoch)
            self._outbox = Outbox(data_dir / OUTBOX, self._deployment.link_key, self._wall)
            with contextlib.closing(self._outbox):
                yield

    def _remember_epoch(self, epoch: int) -> None:
        """Refuse a directory older than one that was in force here: it may hold a key that was revoked since."""
        try:
            known = max((int(data) for _, data in self._journal.entries(_EPOCH)), default=0)
        except (ValueError, TypeError) as error:
            journal = self._config.data_dir / JOURNAL
            raise LedgerCorrupt(f"{journal}: the record of kind {_EPOCH!r} cannot be read: {error}") from error
        if epoch < known:
            raise ConfigError(f"{self._config.roster}: epoch {epoch}; epoch {known} was in force here already")
        if epoch > known:
            self._journal.append(_EPOCH, "", str(epoch).encode())

    @asynccontextmanager
    async def _linked(self) -> AsyncIterator[ActorSystem]:
        """Bring up links and the system of actors on them."""
        config, (host, port) = self._config, self._config.listen
        async with contextlib.AsyncExitStack() as stack:
            try:
                self._transport = self._deployment.transport()
                system = ActorSystem(config.name, transport=self._transport, on_link=self._seen.link)
                self._system = await stack.enter_async_context(system)
            except BadSetting as error:
                raise ConfigError(f"{config.path}: {error}") from error
            except OSError as error:
                raise ConfigError(f"{config.path}: listen {host}:{port}: {error.strerror or error}") from error
            self._post = Post(system, self._node_of, self._outbox.record)
            self._listening = f"{host}:{self._transport.port}"
            log.info("%s listens on %s", config.name, self._listening)
            yield system

    async def _spawn_all(self, system: ActorSystem) -> None:
        federation, roster = self._config.federation, self._deployment.roster
        roles = self._roles = Roles(self._deployment, self._journal)
        path = self._config.data_dir / MODEL
        known = self._known_models(roles)
        self._results = Results(path, federation, form_of(federation), lambda: self._signed.directory.roster, known)
        self._members = {name: Member(name, roster.member(name).role) for name in roles.member_ids}
        failures: list[Exception] = []

        async def spawn(member: Member) -> None:
            try:
                member.ref = await system.spawn(self._factory(member, roles), name=member.id)
            except (ActorStopped, FederationError) as error:
                cause = error.__cause__ if isinstance(error, ActorStopped) and error.__cause__ else error
                where = f"{self._config.data_dir / JOURNAL}: " if isinstance(cause, LedgerCorrupt) else ""
                failures.append(FederationError(f"{where}member {member.id} does not start: {cause}"))
            except Exception as error:  # noqa: BLE001 - raised again below, not wrapped in the group's own exception
                failures.append(error)

        # All at once: each has a mailbox before any of them, or a peer, can say a word to it. One after the other, a
        # first round waits as long as it may for a basket that has asked a coordinator that was not there yet.
        async with anyio.create_task_group() as group:
            for member in self._members.values():
                group.start_soon(spawn, member)
        if failures:
            raise failures[0]
        refs = tuple(member.ref for member in self._members.values() if member.ref is not None)
        await system.spawn(KeeperActor(refs, self.stop), name="keeper")

    def _factory(self, member: Member, roles: Roles) -> Callable[[], MemberActor]:
        journal = self._outbox.watch(member.id, self._journal_of(member.id))

        def make() -> MemberActor:
            member.core, member.learner = roles.make(member.id)
            return MemberActor(
                member.id, member.core, post=self._post, journal=journal, observe=self._observe, hosts=self._hosts
            )

        return make

    def _journal_of(self, member_id: str) -> JournalStore:
        return member_journal(self._journal, member_id, self._deployment.ledger_keys[member_id])

    def _known_models(self, roles: Roles) -> Iterator[Model]:
        for name in roles.member_ids:
            for _, data in self._journal_of(name).entries(MODELS):
                try:
                    body = decode_packet(data).body
                except (CodecError, TypeError) as error:
                    where = f"{self._config.data_dir / JOURNAL}: member {name}"
                    raise LedgerCorrupt(f"{where}: the record of kind {MODELS!r} cannot be read: {error}") from error
                if isinstance(body, Model):
                    yield body

    # Who is where.

    def _node_of(self, member_id: str) -> str:
        return self._signed.directory.node_of(member_id)

    def _hosts(self, node: str, member_id: str) -> bool:
        hosted = self._signed.directory.hosts(node, member_id)
        if hosted:
            self._seen.member_at[member_id] = anyio.current_time()
        return hosted

    def _dial_all(self) -> None:
        for entry in self._signed.directory.nodes:
            if entry.name != self._config.name and entry.address:
                self._transport.dial(entry.name, *parse_address(entry.address))

    async def _watch_directory(self) -> None:
        """Adopt a newer directory as soon as its file is there; links to who is not on it end at once."""
        path, known = self._config.roster, None  # a file that came while the daemon started is a newer one too
        while not self._expired():
            await anyio.sleep(_WATCH_S)
            if (stamp := _stamp(path)) == known:
                continue
            try:
                signed = read_directory(path, self._config.federation.operator_key, self._wall())
                if signed != self._signed:
                    self._adopt(signed)
            except ConfigError as error:
                log.warning("epoch %d stays in force: %s", self._signed.directory.epoch, error)
            except FederationError as error:  # a full disk: look at the same file again
                log.warning("epoch %d stays in force for now: %s", self._signed.directory.epoch, error)
                continue
            known = stamp

    def _expired(self) -> bool:
        """End the daemon when the directory is no longer valid: who is revoked in a newer one is not known here."""
        expires_at, epoch = self._signed.directory.roster.expires_at, self._signed.directory.epoch
        if self._wall() < expires_at:
            return False
        self._end = ConfigError(f"{self._config.roster}: epoch {epoch} expired on {instant(expires_at)}")
        self.stop()
        return True

    def _adopt(self, signed: SignedDirectory) -> None:
        """Go over to a newer directory, all of it or, when it cannot be remembered, nothing.

        Raises:
            FederationError: it is no newer one, does not hold this node, or the disk does not take its epoch.
        """
        directory = signed.directory
        if directory.epoch <= self._signed.directory.epoch:
            raise ConfigError(f"{self._config.roster}: epoch {directory.epoch} is no newer one")
        require_listed(self._config, directory, self._deployment.link_key)
        self._remember_epoch(directory.epoch)
        self._signed = signed
        self._roles.adopt(signed)
        self._transport.set_peers(directory.peers())
        self._dial_all()
        log.info("epoch %d is in force: %d nodes", directory.epoch, len(directory.nodes))
        here = seated(self._config, directory, self._deployment.member_keys)
        for member in self._members.values():
            if member.id not in here and member.ref is not None:
                log.warning("%s is not placed here by epoch %d: it stops", member.id, directory.epoch)
                self._system.stop(member.ref)
            elif isinstance(member.core, CoordinatorCore):
                member.core.renew(directory.roster, signed.roster_signature)

    # What is seen and asked.

    def _observe(self, member_id: str, what: Event | Reject) -> None:
        if isinstance(what, Reject):
            self._seen.refused(member_id, what)
            return
        if isinstance(what, ModelAccepted | ModelMade):
            self._keep(what.model)
        fields = {"fields": {"member": member_id, "round": round_of(what), "event": type(what).__name__}}
        log.info("%s, %s", member_id, describe(what), extra=fields)

    def _keep(self, model: Model) -> None:
        try:
            self._results.keep(model)
        except ConfigError as error:  # the journal has the model: the file is written again with the next one
            log.warning("the model file is not up to date: %s", error)

    def _answer(self, command: str) -> Mapping[str, Any]:
        if command == "stop":
            self.stop()
            return {"stopping": True}
        if command == "status":
            return self._status()
        raise ConfigError(f"expected status or stop, got {command[:40]!r}")

    def _status(self) -> Mapping[str, Any]:
        federation, data_dir = self._config.federation, self._config.data_dir
        budget = federation.budget.epsilon
        return status_of(
            node=self._config.name,
            pid=os.getpid(),
            federation=federation.federation,
            federation_digest=federation.digest,
            epoch=self._signed.directory.epoch,
            now=anyio.current_time(),
            started_at=self._started_at,
            listening=self._listening,
            transport=self._transport.statistics(),
            link_changed_at=self._seen.link_changed_at,
            members=[member.facts(self._system, budget) for member in self._members.values()],
            node_of=self._node_of,
            seen_at=self._seen.member_at,
            refusals={**self._seen.refusals, **self._post.lost},
            models=self._results.rounds,
            failures=[f"{each.ref.address.path}: {each.error}" for each in self._system.failures],
            journal_bytes=size_of(data_dir / JOURNAL, data_dir / f"{JOURNAL}-wal"),
            outbox_bytes=self._outbox.size_bytes,
            outbox_records=len(self._outbox),
            unlogged=self._num_unlogged(),
        ).to_json()


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return an error of ours out of what the tasks of a daemon raised; the whole, when none is."""
    ours: Exception = group.subgroup(FederationError) or group
    while isinstance(ours, ExceptionGroup) and ours is not group:
        ours = ours.exceptions[0]
    return ours


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino

"""Every failure that `scarcity` raises, under one root.

Three branches say who has to act: the caller (`LocalError`), a peer (`RemoteError`) or the privacy budget
(`BudgetError`). A protocol core never raises for what a peer can send; it returns `Reject`. `RemoteError` is for the
places that are called by our own code with a peer's bytes (decoding, the in-process runner).
"""

from __future__ import annotations


class FederationError(Exception):
    """Root of all errors of `scarcity`."""


class LocalError(FederationError, ValueError):
    """You called us wrong: bad input, bad configuration, wrong order of calls. State is unchanged."""


class RemoteError(FederationError):
    """A peer broke the protocol.

    Attributes:
        peer: id of the peer that is to blame, empty when nobody can be named.
        evidence: bytes that show it, empty when there are none.
    """

    def __init__(self, message: str, *, peer: str = "", evidence: bytes = b"") -> None:
        super().__init__(message)
        self.peer = peer
        self.evidence = evidence


class BudgetError(FederationError):
    """The privacy budget would be exceeded, or can no longer be accounted for. Nothing was released."""


class ConfigError(LocalError):
    """A setting is unknown, out of range, or cannot hold together with another one."""


class InvalidUpdate(LocalError):
    """An update has the wrong shape or dtype, or a value that is not finite."""


class InvalidRow(LocalError):
    """A data row has a missing column, text where a number belongs, or a value that is not finite."""


class InsufficientInputs(LocalError):
    """A rule was given fewer inputs than its breakdown point needs."""


class SchemaMismatchError(LocalError):
    """An update was made under another schema than the round's."""


class UnknownClientError(LocalError):
    """No client of this id is registered."""


class DuplicateClientError(LocalError):
    """A client of this id is registered already."""


class AlreadySubmittedError(LocalError):
    """The client has contributed to the open round already; nothing was charged."""


class CodecError(RemoteError):
    """Bytes that are not the canonical form of a known message."""


class ProtocolError(RemoteError):
    """A peer's message is not what the protocol allows in this state."""


class ThresholdError(RemoteError):
    """Fewer participants are left than the threshold needs; the round is abandoned and nothing is revealed."""


class PrivacyBudgetExceeded(BudgetError):
    """The event would take the ledger over its budget; it was not admitted.

    Attributes:
        requested: what was asked for, as text (sigma, sensitivity, rows).
        remaining: what is left, as text.
        ledger_id: the ledger that refused.
    """

    def __init__(self, requested: str, remaining: str, ledger_id: str) -> None:
        super().__init__(f"ledger {ledger_id}: {requested} exceeds the budget; remaining: {remaining}")
        self.requested = requested
        self.remaining = remaining
        self.ledger_id = ledger_id


class UnsupportedEvent(BudgetError):
    """The ledger accounts for Gaussian events only; this one is of another kind."""


class LedgerCorrupt(BudgetError):
    """The ledger's hash chain is broken somewhere else than at a torn last record."""


class LedgerInUse(BudgetError):
    """Another process holds this ledger."""


class OutboxError(FederationError):
    """What is about to leave cannot be put on record, so it stays."""


class OutboxCorrupt(OutboxError):
    """The outbox's chain is broken somewhere else than at a torn last line, or is signed by another key."""


class NodeNotRunning(FederationError):
    """No daemon answers at this node's control socket."""


class NodeRunning(FederationError):
    """A daemon of this node runs already."""

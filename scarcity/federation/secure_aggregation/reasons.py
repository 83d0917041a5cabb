"""The words for why something is refused in a secure sum."""

from __future__ import annotations

import enum

import attrs


class Reason(enum.Enum):
    """Why a message, a config or a sum is refused."""

    WRONG_STATE = "not expected in this state"
    TERMINAL = "this sum is over here; nothing is accepted any more"
    WRONG_CONTEXT = "belongs to another sum"
    WRONG_SENDER = "the sender is not who the message says, or takes no part"
    DUPLICATE = "was received already; the first one counts"
    EQUIVOCATION = "contradicts what was said before in this sum"
    MALFORMED = "has the wrong shape for this sum"
    BAD_SIGNATURE = "does not carry the right signature"
    BAD_MEMBERS = "names a set of members that it may not name"
    BAD_KEY = "holds a key that must not be used"
    EPOCH_KEY_CHANGED = "a member has another channel key than before in this round, or one that was replaced"
    BAD_BOX = "a box of shares does not open"
    BAD_MAC = "a confirmation does not hold"
    BAD_SHARE = "shares do not give the committed secret"
    TOO_FEW = "fewer members than needed"
    NO_POLICY = "no policy is pinned for this scope"
    WRONG_FEDERATION = "is of another federation, epoch or roster"
    REPLAYED = "is not newer than the last sum of its scope"
    ROUND_SPENT = "an input of this round, or of a later one, has been sent already"
    RESTARTED = "this party was restarted in the round, so it is a dropout of it"
    WEAKER_RETRY = "a retry asks for fewer survivors than the first attempt"
    WEAK_CONFIG = "is weaker than the protocol or the pinned policy allows"
    OVERFLOW = "the sum might not fit the ring"
    UNSUPPORTED = "is of a suite or graph that is not spoken here"
    WITHDRAWN = "the member has given the sum up"


@attrs.frozen
class Refused:
    """Something was refused.

    Attributes:
        reason: the code.
        peer: id of the member to blame, empty when nobody can be named.
        detail: figures for people.
    """

    reason: Reason
    peer: str = ""
    detail: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        who = f"{self.peer}: " if self.peer else ""
        return f"{who}{self.reason.name}: {self.reason.value}" + (f" ({self.detail})" if self.detail else "")

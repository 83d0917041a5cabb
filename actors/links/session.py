"""How a link comes to be, and every limit on what a stranger may cost. Pure: no socket, no clock.

Who says what when: the dialer sends Hello; the acceptor answers Welcome, which has the same fields, or Refuse with a
reason; then both send what they like. Where there is TLS all of it is inside, and the key in Hello must be the key of
the certificate; without it the key is a claim and proves nothing.

| state | on | then |
|---|---|---|
| half open | Hello that `judge` accepts, and `keep_old` prefers | up, Welcome |
| half open | Hello refused | Refuse, closed |
| half open | anything else, 4 KiB, 5 s | closed |
| up | message with the next number | delivered |
| up | another number, a bad frame, half a frame for 10 s, silence for 15 s | closed |

Every frame after Hello and Welcome begins with a number that grows by one. Where it starts is a random choice of the
receiver, told in its Hello or Welcome, so what was recorded on one link is refused on another.

Trusted: the clock, and the list of peers. Not defended against: a listed peer that talks sense too often is slowed
down, not cut off; addresses can be shared, so strangers behind a peer's address can use up its half-open places.
"""

from __future__ import annotations

import enum
import struct
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate, pairwise

import attrs

from actors.clock import check_seconds
from actors.errors import ActorError, BadFrame, BadSetting
from actors.links.frame import Frame, encode_frame

VERSION = 1
CHUNK_BYTES = 64 * 1024  # read at once, and sent at once: above this a system call costs less than the copying
KEY_BYTES = 32  # an Ed25519 public key
INCARNATION_BYTES = 16
FIRST_BYTES = 6  # of randomness in a first number: it never overflows 64 bits, and a recording fits 1 time in 2**48

HELLO, WELCOME, REFUSE, ACK, PING, CLOSE = 1, 2, 3, 4, 5, 6
_MAGIC = b"SCFL"
_OPENING = struct.Struct("<4sH")  # the same in every version, so that a wrong version can be told from garbage
_HELLO = struct.Struct("<4sHQ16s32sBBB")


class Refusal(enum.Enum):
    """Why a connection was refused or a link closed; counted by this, and its place here is its code on the wire."""

    OTHER = "unspecified"
    WRONG_VERSION = "wrong version"
    WRONG_FEDERATION = "wrong federation id"
    UNKNOWN_NODE = "node is not listed"
    WRONG_KEY = "key is not the one that is listed"
    NOT_EXPECTED = "another node answered"
    DUPLICATE = "there is a link already"
    SUPERSEDED = "a newer link took its place"
    BAD_FRAME = "bad frame"
    REPLAYED = "frame out of sequence"
    HELLO_LATE = "no Hello in time"
    FRAME_LATE = "half a frame and silence"
    SILENT = "silence"
    HALF_OPEN = "too many half-open connections"
    HALF_OPEN_ADDRESS = "too many half-open connections from this address"
    NOT_TLS = "not TLS 1.3"
    UNTRUSTED = "certificate is not of this federation"
    EXPIRED = "certificate has expired"
    VANISHED = "no connection, or it ended"
    CLOSED = "peer closed"
    STOPPED = "stopped here"


_CODES = tuple(Refusal)


class LinkRefused(ActorError):
    """A connection or link is refused; `reason` says why."""

    def __init__(self, reason: Refusal, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason


@attrs.frozen
class Limits:
    """What a peer may cost. `TransportStatistics.reasons` and `LinkStatistics` count how often each was hit.

    Attributes:
        hello_bytes_max: bound of a frame before Welcome: Hello needs under 900 bytes, strangers get no more.
        hello_s: time for connecting, TLS and Hello together: a slow continent needs under two seconds.
        half_open_max: connections without Hello, in all: each may hold a chunk and a TLS handshake, about 100 KiB.
        half_open_per_address_max: of these from one address, so that one machine cannot take them all.
        frame_bytes_max: bound of a frame's length: a model's array fits, and a peer can hold no more than this here.
        frame_s: time in which a frame that has begun must end.
        silence_s: without a byte for this long the peer is taken for gone; both sides speak three times as often.
        tokens_per_s: what a peer may cost in the long run; a frame costs one and so do 4 KiB. Above it, reading waits.
        tokens_burst: what it may cost at once.
        budget_out_bytes: what may wait for one peer, unacknowledged messages included; then `LinkFull`.
        budget_in_bytes: what may be held of one peer's incoming; the frame and the chunk must fit.
        drain_s: time in which stopping may still send what waits.
    """

    hello_bytes_max: int = 4 * 1024
    hello_s: float = 5.0
    half_open_max: int = 64
    half_open_per_address_max: int = 8
    frame_bytes_max: int = 4 * 1024 * 1024
    frame_s: float = 10.0
    silence_s: float = 15.0
    tokens_per_s: float = 250_000.0
    tokens_burst: float = 250_000.0
    budget_out_bytes: int = 8 * 1024 * 1024
    budget_in_bytes: int = 8 * 1024 * 1024
    drain_s: float = 1.0

    def __attrs_post_init__(self) -> None:
        for name in ("hello_s", "frame_s", "silence_s", "tokens_per_s", "tokens_burst", "drain_s"):
            check_seconds(name, getattr(self, name))
        for name in ("half_open_max", "half_open_per_address_max"):
            _check_whole(name, getattr(self, name), 1)
        _check_whole("hello_bytes_max", self.hello_bytes_max, 900)
        _check_whole("frame_bytes_max", self.frame_bytes_max, self.hello_bytes_max)
        _check_whole("budget_out_bytes", self.budget_out_bytes, self.frame_bytes_max)
        _check_whole("budget_in_bytes", self.budget_in_bytes, self.frame_bytes_max + CHUNK_BYTES)


def _check_whole(name: str, value: int, least: int) -> None:
    if type(value) is not int or not least <= value < 2**32:
        raise BadSetting(f"{name}: expected an integer in {least} .. 2**32 - 1, got {value!r}")


@attrs.frozen
class Hello:
    """What a node says of itself, first thing on a link; Welcome has the same fields.

    Attributes:
        federation: 1 to 255 bytes of UTF-8; nodes of different federations never link.
        node: the node's name.
        to: whom it means to talk to; so it is refused by any other node before a link there is touched.
        incarnation: 16 random bytes per process start.
        key: 32 bytes, the node's Ed25519 public key.
        first: the number it expects on the first frame that it gets.
        version: of the wire format.
    """

    federation: str
    node: str
    to: str
    incarnation: bytes
    key: bytes
    first: int
    version: int = VERSION

    def __attrs_post_init__(self) -> None:
        for name in ("federation", "node", "to"):
            if not 1 <= len(getattr(self, name).encode()) <= 255:
                raise BadSetting(f"{name}: expected 1 to 255 bytes of UTF-8, got {getattr(self, name)!r}")
        if len(self.incarnation) != INCARNATION_BYTES:
            raise BadSetting(f"incarnation: expected {INCARNATION_BYTES} bytes, got {len(self.incarnation)}")
        if len(self.key) != KEY_BYTES:
            raise BadSetting(f"key: expected the {KEY_BYTES} bytes of an Ed25519 public key, got {len(self.key)}")

    def encode(self, kind: int) -> bytes:
        """Return the whole frame, `kind` being HELLO or WELCOME."""
        names = (self.federation.encode(), self.node.encode(), self.to.encode())
        head = _HELLO.pack(
            _MAGIC, self.version, self.first, self.incarnation, self.key, *map(len, names)
        )  # fmt: skip
        return encode_frame(kind, head + b"".join(names))


def decode_hello(frame: Frame, kind: int) -> Hello:
    """Read the first frame of a link, which must be of this kind.

    Raises:
        LinkRefused: the peer refused (its reason), or speaks another version.
        BadFrame: anything else.
    """
    found, header, blob = frame
    if found == REFUSE and kind == WELCOME:
        code = header[0] if header else 0
        raise LinkRefused(_CODES[code] if code < len(_CODES) else Refusal.OTHER, "said the peer")
    if found != kind or blob or len(header) < _OPENING.size:
        raise BadFrame(f"expected frame kind {kind} first, got {found}")
    magic, version = _OPENING.unpack_from(header)
    if magic != _MAGIC:
        raise BadFrame("not the opening of a link")
    if version != VERSION:
        raise LinkRefused(Refusal.WRONG_VERSION, f"{version}, here it is {VERSION}")
    if len(header) < _HELLO.size:
        raise BadFrame("Hello is too short")
    _, _, first, incarnation, key, *lengths = _HELLO.unpack_from(header)
    if len(header) != _HELLO.size + sum(lengths) or first >= 2 ** (8 * FIRST_BYTES):
        raise BadFrame("Hello has the wrong length or number")
    ends = accumulate(lengths, initial=_HELLO.size)
    try:
        federation, node, to = (header[start:stop].decode() for start, stop in pairwise(ends))
        return Hello(federation, node, to, incarnation, key, first)
    except (UnicodeDecodeError, BadSetting):
        raise BadFrame("Hello has a bad name") from None


def encode_refuse(reason: Refusal) -> bytes:
    """Return the whole frame that says no."""
    return encode_frame(REFUSE, bytes([_CODES.index(reason)]))


def judge(
    hello: Hello, me: Hello, allowed: Mapping[str, bytes], *, proven_key: bytes | None, expected: str | None
) -> Refusal | None:
    """Return why a Hello or Welcome is not accepted, `None` when it is.

    Args:
        hello: what the peer said.
        me: what this node says.
        allowed: node name to public key.
        proven_key: the key that TLS has proven, `None` where there is no TLS.
        expected: who was dialed, `None` for an acceptor.
    """
    if hello.federation != me.federation:
        return Refusal.WRONG_FEDERATION
    if hello.node not in allowed or hello.node == me.node:
        return Refusal.UNKNOWN_NODE
    if hello.key != allowed[hello.node] or (proven_key is not None and proven_key != hello.key):
        return Refusal.WRONG_KEY
    if hello.to != me.node or (expected is not None and hello.node != expected):
        return Refusal.NOT_EXPECTED
    return None


def keep_old(me: str, peer: str, *, old_dialed: bool, new_dialed: bool, same_process: bool) -> bool:
    """Return whether the link that exists wins over a new one; both ends come to the same answer.

    A new process, or a second link in the same direction, says that the old link is dead at the other end. Of two
    links that were dialed at once, the one that the lower name dialed wins.
    """
    if not same_process or old_dialed == new_dialed:
        return False
    return old_dialed == (me < peer)


class Gate:
    """Counts connections that have not said Hello."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_address: Counter[str] = Counter()
        self.num_open = 0

    def enter(self, address: str) -> Refusal | None:
        """Take a place, or return why there is none."""
        if self.num_open >= self._limits.half_open_max:
            return Refusal.HALF_OPEN
        if self._by_address[address] >= self._limits.half_open_per_address_max:
            return Refusal.HALF_OPEN_ADDRESS
        self.num_open += 1
        self._by_address[address] += 1
        return None

    def leave(self, address: str) -> None:
        """Give the place back."""
        self.num_open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class TokenBucket:
    """Says how long to wait so that the cost stays within a rate and a burst."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._tokens = burst
        self._at = now

    def spend(self, cost: float, now: float) -> float:
        """Pay, with debt if need be, and return the seconds until the debt is paid."""
        # A clock that was set back gives no tokens, but takes none either: a debt of an hour would stop the reader.
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate) - cost
        self._at = now
        return max(0.0, -self._tokens / self._rate)

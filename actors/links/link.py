"""One peer as this node sees it: what waits for it, what came from it, with or without a link. Pure.

The shell feeds it bytes and asks it for bytes. There is one of these per peer, so there is one link per pair; the
reliable channel and the counts outlive the link, all else is made anew by `open`. Frames on a link that is up:

| kind | header | blob |
|---|---|---|
| 4 ack | u64 number, u64 delivered up to, u32 room | |
| 5 ping, 6 close | u64 number | |
| 64 + k message | u64 number, header | blob |
| 192 + k reliable message | u64 number, u64 sequence, header | blob |

Numbers are given when bytes are asked for, so an acknowledgement overtakes what waits. Reliable messages go before
others: they are few, have a window, and somebody waits for them.
"""

from __future__ import annotations

import struct
from collections import deque

from actors.errors import BadFrame, BadSetting, LinkFull
from actors.links.frame import HEAD_BYTES, Frame, Framer
from actors.links.reliable import (
    MESSAGE_OVERHEAD_BYTES,
    Message,
    ReliableConfig,
    ReliableReceiver,
    ReliableSender,
    held_bytes,
)
from actors.links.session import ACK, CHUNK_BYTES, CLOSE, PING, Hello, Limits, LinkRefused, Refusal, TokenBucket
from actors.transport import KIND_MAX, LinkStatistics, flat

_MESSAGE, _RELIABLE = 0x40, 0xC0
_HEAD = struct.Struct("<IBIQ")  # a frame's head, and the number that begins every header
_NUMBER = struct.Struct("<Q")
_ACK = struct.Struct("<QI")
_OVERHEAD = HEAD_BYTES + 2 * _NUMBER.size
# A blob this large is sent by itself, without copying it behind its head: below, the copy costs less than the call.
VIEW_BYTES = 256 * 1024
_TOKEN_BYTES = 4096


class PeerLink:
    """The state towards one peer.

    Args:
        node: the peer's name.
        limits: what it may cost.
        reliable: bounds of the reliable channel.
    """

    def __init__(self, node: str, limits: Limits, reliable: ReliableConfig) -> None:
        self.node = node
        self.up = False
        self.fault: Refusal | None = None
        self.incarnation: bytes | None = None
        self.last_reason = "never up"
        self._limits = limits
        self._sender = ReliableSender(reliable)
        self._receiver = ReliableReceiver(reliable)
        # Best effort, each with the number of the reliable message that would come next: that one waits for it.
        self._queue: deque[tuple[int, Message]] = deque()
        self._queued = 0  # bytes charged for the queue and for what the shell is sending
        self._in_hand = 0  # of these, what the shell is sending
        self._opening = b""
        self._ack_due = self._ping_due = self._leaving = False
        self._number_in = self._number_out = 0
        self._framer = Framer(limits.frame_bytes_max)
        self._bucket = TokenBucket(limits.tokens_per_s, limits.tokens_burst, 0.0)
        self._partial_since: float | None = None
        self._heard_at = self._spoke_at = 0.0
        self._num_links = self._num_full = self._num_dropped = self._num_given_up = self._num_throttled = 0
        self._sent_frames = self._sent_bytes = self._received_frames = self._received_bytes = self._held_max = 0

    def open(self, theirs: Hello, mine: Hello, now: float, *, opening: bytes = b"") -> None:
        """A link is up; `opening` is sent first."""
        assert not self.up
        if self.incarnation not in (None, theirs.incarnation):
            self._num_given_up += self._sender.restart()
            self._receiver.restart()
        else:
            self._sender.rewind()
        self.incarnation = theirs.incarnation
        self.up, self.fault, self.last_reason = True, None, ""
        self._opening = opening
        self._ack_due, self._ping_due, self._leaving = True, False, False
        self._number_in, self._number_out = mine.first, theirs.first
        self._framer = Framer(self._limits.frame_bytes_max)
        self._partial_since = None
        self._bucket.spend(0.0, now)
        self._heard_at = self._spoke_at = now
        self._num_links += 1

    def close(self, reason: str) -> None:
        """The link is down; what waited for it and is not reliable is dropped."""
        self.up = False
        self.last_reason = reason
        self._num_dropped += len(self._queue)
        self._queue.clear()
        self._queued = self._in_hand = 0
        self._framer = Framer(self._limits.frame_bytes_max)

    def forget(self, reason: str) -> None:
        """The peer is not listed any more, or its key is another one: nothing that waits may reach whoever comes next.

        Both channels start anew with the next link, so this node must call itself by a new incarnation there.
        """
        assert not self.up
        self.last_reason = reason
        self.incarnation = None
        self._num_given_up += self._sender.clear()
        self._receiver.restart()

    def send(self, kind: int, header: bytes, blob: bytes | memoryview, *, reliable: bool) -> None:
        """Take a message.

        Raises:
            LinkFull: the byte budget is used up.
            BadSetting: the kind, or the size, can never be sent.
        """
        blob = flat(blob)
        size = MESSAGE_OVERHEAD_BYTES + len(header) + len(blob)
        if not 0 <= kind <= KIND_MAX:
            raise BadSetting(f"kind: expected an integer in 0 .. {KIND_MAX}, got {kind!r}")
        if size - MESSAGE_OVERHEAD_BYTES + _OVERHEAD > self._limits.frame_bytes_max:
            raise BadSetting(f"message: expected under {self._limits.frame_bytes_max - _OVERHEAD} bytes, got {size}")
        held = self._queued + self._sender.held + size
        if held > self._limits.budget_out_bytes:
            self._num_full += 1
            raise LinkFull(f"{self.node}: {held - size} of {self._limits.budget_out_bytes} bytes wait for it")
        if held > self._held_max:
            self._held_max = held
        if reliable:
            self._sender.offer((kind, header, blob))
        elif self.up:
            self._queue.append((self._sender.next_offer, (kind, header, blob)))
            self._queued += size
        else:
            self._num_dropped += 1

    def leave(self) -> None:
        """Say goodbye when nothing waits any more."""
        self._leaving = True

    def has_work(self) -> bool:
        """Return whether `take` would give bytes."""
        leaves = self._leaving and not len(self._sender)
        return bool(self._queue or self._sender.ready or self._opening or self._ack_due or self._ping_due or leaves)

    def take(self, now: float) -> list[bytes | memoryview]:
        """Return about 64 KiB to send, joined but for large blobs; call `sent` when they are gone."""
        pieces: list[bytes | memoryview] = []
        small: list[bytes | memoryview] = [self._opening] if self._opening else []
        size = len(self._opening)
        self._opening = b""
        if self._ack_due or self._ping_due:
            size += self._take_control(small)
        queue, sender = self._queue, self._sender
        while size < CHUNK_BYTES:
            # A reliable message does not overtake what was said before it. If it waits for the window, it is overtaken.
            if queue and not (sender.ready and sender.next_due < queue[0][0]):
                message = queue.popleft()[1]
                self._in_hand += held_bytes(message)
                size += self._put(pieces, small, message[0] | _MESSAGE, message[1], message[2])
            elif sender.ready:
                sequence, (kind, header, blob) = sender.take(now)
                size += self._put(pieces, small, kind | _RELIABLE, _NUMBER.pack(sequence) + header, blob)
            else:
                break
        if self._leaving and not queue and not len(self._sender):
            self._leaving = False
            size += self._put(pieces, small, CLOSE, b"", b"")
        if small:
            pieces.append(b"".join(small))
        if pieces:
            self._spoke_at = now
            self._sent_bytes += size
        return pieces

    def sent(self) -> None:
        """What was taken has left; its budget is free."""
        self._queued -= self._in_hand
        self._in_hand = 0

    def receive(self, data: bytes, now: float) -> tuple[list[Frame], float]:
        """Return the messages that `data` completes, and the seconds to wait before reading on.

        The messages must be delivered now: the next bytes taken may acknowledge them. A peer that breaks the protocol
        sets `fault`; what came before that is still returned.
        """
        self._heard_at = now
        self._received_bytes += len(data)
        frames: list[Frame] = []
        messages: list[Frame] = []
        try:
            try:
                self._framer.receive(data, frames)
            finally:
                self._unpack(frames, messages)
        except BadFrame:
            self.fault = Refusal.BAD_FRAME
        except LinkRefused as refused:
            self.fault = refused.reason
        if not self._framer.partial_bytes:
            self._partial_since = None
        elif frames or self._partial_since is None:
            self._partial_since = now
        self._received_frames += len(messages)
        wait_s = self._bucket.spend(len(frames) + len(data) / _TOKEN_BYTES, now)
        self._num_throttled += wait_s > 0
        return messages, wait_s

    def tick(self, now: float) -> None:
        """Look at the clock: set `fault` when the peer is late, ask for a ping when this side is silent.

        A clock that was set back must not make this side wait that long: then the time counts from now.
        """
        self._heard_at, self._spoke_at = min(self._heard_at, now), min(self._spoke_at, now)
        if self._partial_since is not None:
            self._partial_since = min(self._partial_since, now)
        if self._partial_since is not None and now - self._partial_since > self._limits.frame_s:
            self.fault = Refusal.FRAME_LATE
        elif now - self._heard_at > self._limits.silence_s:
            self.fault = Refusal.SILENT
        self._ping_due = now - self._spoke_at > self._limits.silence_s / 3
        self._sender.tick(now)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not self._queued and not len(self._sender)

    def statistics(self) -> LinkStatistics:
        """Return the counts so far."""
        return LinkStatistics(
            node=self.node,
            up=self.up,
            last_reason=self.last_reason,
            num_links=self._num_links,
            sent_frames=self._sent_frames,
            sent_bytes=self._sent_bytes,
            received_frames=self._received_frames,
            received_bytes=self._received_bytes,
            held_bytes=self._queued + self._sender.held,
            held_bytes_max=self._held_max,
            num_full=self._num_full,
            num_dropped=self._num_dropped,
            num_given_up=self._num_given_up,
            num_resent=self._sender.num_resent,
            num_duplicates=self._receiver.num_duplicates,
            num_early=self._receiver.num_early,
            num_throttled=self._num_throttled,
        )

    def _put(
        self,
        pieces: list[bytes | memoryview],
        small: list[bytes | memoryview],
        kind: int,
        header: bytes,
        blob: bytes | memoryview,
    ) -> int:
        """Append one frame and return its size."""
        num_header, num_blob = len(header), len(blob)
        length = 13 + num_header + num_blob
        small.append(_HEAD.pack(length, kind, 8 + num_header, self._number_out))
        small.append(header)
        self._number_out += 1
        self._sent_frames += kind >= _MESSAGE
        if num_blob >= VIEW_BYTES:
            pieces.append(b"".join(small))
            pieces.append(blob)
            small.clear()
        elif num_blob:
            small.append(blob)
        return 4 + length

    def _take_control(self, small: list[bytes | memoryview]) -> int:
        size = 0
        if self._ack_due:
            size += self._put([], small, ACK, _ACK.pack(*self._receiver.ack()), b"")
        elif self._ping_due:
            size += self._put([], small, PING, b"", b"")
        self._ack_due = self._ping_due = False
        return size

    def _unpack(self, frames: list[Frame], messages: list[Frame]) -> None:
        number, unpack = self._number_in, _NUMBER.unpack_from
        for kind, header, blob in frames:
            if len(header) < 8:
                raise BadFrame("a header begins with a number")
            if unpack(header)[0] != number:
                raise LinkRefused(Refusal.REPLAYED)
            number += 1
            if kind & _RELIABLE == _MESSAGE:
                messages.append((kind & KIND_MAX, header[8:], blob))
            elif kind >= _RELIABLE:
                self._unpack_reliable(kind, header, blob, messages)
            else:
                self._unpack_control(kind, header)
        self._number_in = number

    def _unpack_reliable(self, kind: int, header: bytes, blob: bytes | memoryview, messages: list[Frame]) -> None:
        if len(header) < 16:
            raise BadFrame("a reliable header begins with a number and a sequence")
        self._ack_due = True
        if self._receiver.receive(_NUMBER.unpack_from(header, 8)[0]):
            messages.append((kind & KIND_MAX, header[16:], blob))

    def _unpack_control(self, kind: int, header: bytes) -> None:
        if kind == ACK and len(header) == 8 + _ACK.size:
            cumulative, room = _ACK.unpack_from(header, 8)
            self._sender.acked(cumulative, room, self._heard_at)
        elif kind == CLOSE:
            raise LinkRefused(Refusal.CLOSED)
        elif kind != PING:
            raise BadFrame(f"frame kind {kind} has no meaning here")

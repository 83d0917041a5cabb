"""Frames on a byte stream: bytes in, frames out, every limit checked before anything is kept.

    u32 length | u8 kind | u32 header length | header | blob        (little-endian; length counts what follows it)

The header is small and structured, the blob is raw bytes that nobody copies on the way out of here. The framer grows
its buffer with the bytes that came, never with the length that was claimed, so a claim costs nothing.
"""

from __future__ import annotations

import struct

from actors.errors import BadFrame

Frame = tuple[int, bytes, "bytes | memoryview"]
"""Kind, header, blob. A plain tuple: a named one costs four times as much to make, and this is made per message."""

HEAD = struct.Struct("<IBI")
HEAD_BYTES = HEAD.size
_AFTER_LENGTH = HEAD_BYTES - 4
# A view of a small blob would keep its whole 64 KiB chunk alive, several hundred times its size; so small blobs are
# copied, and a view keeps alive at most four times what it shows.
COPY_BELOW_BYTES = 16 * 1024


def encode_frame(kind: int, header: bytes, blob: bytes | memoryview = b"") -> bytes:
    """Return one whole frame."""
    return b"".join((HEAD.pack(_AFTER_LENGTH + len(header) + len(blob), kind, len(header)), header, blob))


def split_frame(data: bytes, frame_bytes_max: int) -> tuple[Frame, bytes] | None:
    """Take one frame off the front of `data`: the frame and the rest, or `None` when it is not all there yet.

    For the start of a link, where the limit changes behind the first frame.

    Raises:
        BadFrame: the head breaks a limit.
    """
    if len(data) < HEAD_BYTES:
        return None
    length, kind, num_header = HEAD.unpack_from(data)
    _check(length, num_header, frame_bytes_max)
    split, stop = HEAD_BYTES + num_header, 4 + length
    if stop > len(data):
        return None
    return (kind, data[HEAD_BYTES:split], data[split:stop]), data[stop:]


class Framer:
    """Cuts a stream into frames, however it is chopped up.

    Args:
        frame_bytes_max: bound on a frame's length field; also the bound of what is held between two calls.
    """

    __slots__ = ("_frame_bytes_max", "_partial")

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._partial = bytearray()

    @property
    def partial_bytes(self) -> int:
        """Bytes held of a frame that is not complete."""
        return len(self._partial)

    def receive(self, data: bytes, frames: list[Frame]) -> None:
        """Append the frames that `data` completes, in order; those before a bad head too.

        Raises:
            BadFrame: a head breaks a limit; the stream cannot be used any more.
        """
        at, end, limit, unpack = 0, len(data), self._frame_bytes_max, HEAD.unpack_from
        if self._partial:
            at = self._complete(data, frames)
            if self._partial:
                return
        while end - at >= HEAD_BYTES:
            length, kind, num_header = unpack(data, at)
            if not _AFTER_LENGTH + num_header <= length <= limit:
                _check(length, num_header, limit)
            stop = at + 4 + length
            if stop > end:
                break
            split = at + HEAD_BYTES + num_header
            small = stop - split < COPY_BELOW_BYTES
            frames.append(
                (kind, data[at + HEAD_BYTES : split], data[split:stop] if small else memoryview(data)[split:stop])
            )
            at = stop
        if at < end:
            self._partial += memoryview(data)[at:]
            if len(self._partial) >= HEAD_BYTES:
                length, _, num_header = unpack(self._partial)
                _check(length, num_header, limit)

    def _complete(self, data: bytes, frames: list[Frame]) -> int:
        """Move bytes to the partial frame until it is whole; return how many were moved."""
        partial, view = self._partial, memoryview(data)
        at = max(0, min(HEAD_BYTES - len(partial), len(data)))
        partial += view[:at]
        if len(partial) < HEAD_BYTES:
            return at
        length, kind, num_header = HEAD.unpack_from(partial)
        stop: int = 4 + length
        _check(length, num_header, self._frame_bytes_max)
        moved = min(stop - len(partial), len(data) - at)
        partial += view[at : at + moved]
        if len(partial) == stop:
            whole, split = memoryview(partial).toreadonly(), HEAD_BYTES + num_header
            blob = whole[split:]
            # The frame owns the buffer from here on, so the view may leave; the next frame gets a new buffer.
            self._partial = bytearray()
            frames.append(
                (kind, bytes(whole[HEAD_BYTES:split]), blob if len(blob) >= COPY_BELOW_BYTES else bytes(blob))
            )
        return at + moved


def _check(length: int, num_header: int, frame_bytes_max: int) -> None:
    if length > frame_bytes_max:
        raise BadFrame(f"frame of {length} bytes, at most {frame_bytes_max} are taken")
    if _AFTER_LENGTH + num_header > length:
        raise BadFrame(f"frame of {length} bytes with a header of {num_header}")

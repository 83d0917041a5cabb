"""What can be between TCP and our frames: the shape of it, and nothing at all, which is for one machine."""

from __future__ import annotations

from typing import Protocol

import anyio.abc


class Security(Protocol):
    """What is between TCP and our frames."""

    @property
    def loopback_only(self) -> bool:
        """Whether it must not leave the machine."""

    @property
    def key(self) -> bytes | None:
        """The public key that it proves to peers, `None` where it proves nothing."""

    async def secure(self, stream: anyio.abc.ByteStream, *, dialing: bool) -> tuple[anyio.abc.ByteStream, bytes | None]:
        """Return the stream to use, and the peer's public key where it was proven.

        Raises:
            LinkRefused: the peer is not let in; it was told as far as that is possible, but the stream is still open.
        """


class Plaintext:
    """Nothing at all, on loopback only: keys are claims, and whoever is on this machine can listen."""

    loopback_only = True
    key = None

    async def secure(
        self,
        stream: anyio.abc.ByteStream,
        *,
        dialing: bool,  # noqa: ARG002 - the shape of `Security`
    ) -> tuple[anyio.abc.ByteStream, bytes | None]:
        """Return the stream as it is."""
        return stream, None

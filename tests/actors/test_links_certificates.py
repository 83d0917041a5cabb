"""Certificates: what is checked at start, what a refused dialer learns, and what happens when time runs out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from actors.errors import BadSetting
from actors.links import Backoff, MutualTls, TcpConfig, TcpTransport, sign_node
from actors.links.session import Refusal
from actors.testing import Probe
from tests.links_world import (
    DAY,
    NOW,
    PEERS,
    Authority,
    config,
    node,
    plain,
    private_key,
    public_key,
    until,
)

TIMES = 20  # a reason that gets lost now and then is lost in one of so many; by hand 50 of 50 came


def test_what_a_node_shows_and_for_how_long_is_known(tmp_path: Path) -> None:
    tls = Authority(tmp_path).tls("a", days=(-1, 9))
    assert tls.key == public_key("a")
    assert tls.expires_at == int((NOW + 5 * DAY).timestamp())  # the authority's end is sooner
    assert Authority(tmp_path).tls("a", days=(-1, 0)).expires_at == int(NOW.timestamp())


@pytest.mark.parametrize(
    ("days", "says"), [((-1, 0), r"a-None-0\.certificate\.pem was valid until"), ((1, 2), "is not valid until")]
)
def test_a_certificate_out_of_its_time_is_refused_at_start_with_the_file_and_the_date(
    tmp_path: Path, days: tuple[int, int], says: str
) -> None:
    end = NOW + (days[1] if days[1] == 0 else days[0]) * DAY
    with pytest.raises(BadSetting, match=says) as refused:
        MutualTls(Authority(tmp_path).files("a", days=days))
    assert f"{end:%Y-%m-%d %H:%M:%S} UTC" in str(refused.value)


def test_an_authority_out_of_its_time_is_refused_at_start(tmp_path: Path) -> None:
    files = Authority(tmp_path).files("a", days=(-1, 9))
    with pytest.raises(BadSetting, match=r"authority: .*authority\.pem was valid until"):
        MutualTls(files, now=lambda: (NOW + 6 * DAY).timestamp())


def test_a_certificate_of_another_authority_is_refused_at_start(tmp_path: Path) -> None:
    own, other = Authority(tmp_path).files("a"), Authority(tmp_path, "fed-2").files("a")
    with pytest.raises(BadSetting, match=r"fed-1-a.*certificate\.pem is not signed by the authority in .*fed-2"):
        MutualTls(attrs.evolve(own, authority=other.authority))


def test_an_authority_that_is_being_replaced_may_stand_beside_the_new_one(tmp_path: Path) -> None:
    own, other = Authority(tmp_path).files("a"), Authority(tmp_path, "fed-2").files("a")
    both = tmp_path / "both.pem"
    both.write_bytes(other.authority.read_bytes() + own.authority.read_bytes())
    assert MutualTls(attrs.evolve(own, authority=both)).key == public_key("a")


def test_every_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    good, other = Authority(tmp_path).files("a"), Authority(tmp_path).files("c")
    garbage, locked = tmp_path / "garbage.pem", tmp_path / "locked.pem"
    garbage.write_bytes(b"-----BEGIN NOTHING-----")
    cipher = BestAvailableEncryption(b"secret")
    locked.write_bytes(private_key("a").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
    for field in ("certificate", "key", "authority"):
        for path in (garbage, tmp_path / "missing.pem"):
            with pytest.raises(BadSetting, match=f"^{field}: .*{path.name}"):
                MutualTls(attrs.evolve(good, **{field: path}))
    with pytest.raises(BadSetting, match=r"^key: .*locked\.pem: expected an unencrypted key"):
        MutualTls(attrs.evolve(good, key=locked))
    with pytest.raises(BadSetting, match=r"^key: .*fed-1-c.*: it is not the key of .*fed-1-a"):
        MutualTls(attrs.evolve(good, key=other.key))


@pytest.mark.anyio
async def test_the_key_that_is_configured_must_be_the_certificates_and_the_lists(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="certificate of a is for another key"):
        TcpTransport(config("a", key="z", peers={}), Authority(tmp_path).tls("a"))
    with pytest.raises(BadSetting, match="the list has another key for a"):
        TcpConfig("a", "f", public_key("z"), PEERS)


async def reasons_of(a: TcpTransport, times: int) -> dict[str, int]:
    await until(lambda: sum(a.statistics().reasons.values()) >= times, 60.0)
    return dict(a.statistics().reasons)


def expired(folder: Path) -> MutualTls:
    return Authority(folder).tls("a", days=(-1, 0))


def not_yet_valid(folder: Path) -> MutualTls:
    return Authority(folder).tls("a", days=(1, 2))


def of_another_authority(folder: Path) -> MutualTls:
    """Its own trust is right, or it would refuse the acceptor first."""
    own, other = Authority(folder).files("a"), Authority(folder, "fed-2")
    tls = other.tls("a")
    tls._client.load_verify_locations(own.authority)
    return tls


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("security", "reason"),
    [
        (expired, Refusal.EXPIRED),
        (not_yet_valid, Refusal.UNTRUSTED),
        (of_another_authority, Refusal.UNTRUSTED),
        (lambda folder: Authority(folder).tls("a", key="z"), Refusal.WRONG_KEY),
    ],
)
async def test_a_dialer_that_is_refused_learns_the_reason_every_time(
    tmp_path: Path, security: Callable[[Path], MutualTls], reason: Refusal
) -> None:
    refused, at_a, at_b = security(tmp_path), Probe(), Probe()
    key = "z" if reason is Refusal.WRONG_KEY else "a"
    at_once = attrs.evolve(config("a", key=key, peers={"b": public_key("b")}), backoff=Backoff(0.001, 0.002))
    a = TcpTransport(at_once, refused)
    a.attach(at_a.deliver, at_a.on_link)
    tls = Authority(tmp_path).tls
    async with node("b", at_b, tls("b")) as b, node("c", Probe(), tls("c")) as c, a:
        c.dial("b", "127.0.0.1", b.port)
        await at_b.until(lambda: at_b.up("c"))
        a.dial("b", "127.0.0.1", b.port)
        seen = await reasons_of(a, TIMES)
        assert seen == {reason.value: sum(seen.values())}
        assert a.statistics().links["b"].last_reason == reason.value
        assert b.statistics().reasons[reason.value] >= TIMES
        assert at_b.links == [("c", True, "")]


@pytest.mark.anyio
async def test_an_acceptor_that_is_refused_learns_the_reason_too(tmp_path: Path) -> None:
    at_a, at_b = Probe(), Probe()
    async with (
        node("b", at_b, Authority(tmp_path).tls("b", days=(-1, 0))) as b,
        node("a", at_a, Authority(tmp_path).tls("a")) as a,
    ):
        a.dial("b", "127.0.0.1", b.port)
        seen = await reasons_of(a, 10)
        assert seen == {Refusal.EXPIRED.value: sum(seen.values())}
        await until(lambda: b.statistics().reasons.get(Refusal.EXPIRED.value, 0) >= 10)


@pytest.mark.anyio
async def test_a_dialer_that_meets_plain_tcp_says_so(tmp_path: Path) -> None:
    at_a = Probe()
    async with node("b", Probe(), plain("b")) as b, node("a", at_a, Authority(tmp_path).tls("a")) as a:
        a.dial("b", "127.0.0.1", b.port)
        seen = await reasons_of(a, 10)
        assert seen == {Refusal.NOT_TLS.value: sum(seen.values())}
        assert b.statistics().reasons[Refusal.BAD_FRAME.value] >= 10


@pytest.mark.anyio
async def test_a_link_outlives_its_certificate_and_is_refused_when_it_is_dialed_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.files("a")
    end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    root = private_key(f"authority {authority.name}")
    files.certificate.write_bytes(
        sign_node(root, files.authority.read_bytes(), "a", public_key("a"), not_before=NOW - DAY, not_after=end)
    )
    at_a, at_b = Probe(), Probe()
    async with node("b", at_b, authority.tls("b")) as b, node("a", at_a, MutualTls(files)) as a:
        a.dial("b", "127.0.0.1", b.port)
        await at_a.until(lambda: at_a.up("b"))
        await until(lambda: dt.datetime.now(dt.UTC) > end)
        a.send("b", 1, b"still up", reliable=True)
        await at_b.until_messages(1)
        assert at_a.links == [("b", True, "")]
        a.disconnect("b")
        await until(lambda: a.statistics().links["b"].last_reason == Refusal.EXPIRED.value)
        assert b.statistics().reasons[Refusal.EXPIRED.value] >= 1
        assert not at_b.up("a")

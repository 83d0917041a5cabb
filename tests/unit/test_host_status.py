"""The status of a node: instants become spans, everything survives JSON, and a wait says for whom."""

from __future__ import annotations

import json
import math

import attrs
import pytest

from actors.mailbox import MailboxStatistics
from actors.transport import LinkStatistics, TransportStatistics
from scarcity.errors import FederationError, UnknownClientError
from scarcity.federation.effects import Waiting
from scarcity.node.watch.status import REASONS_MAX, MemberFacts, NodeStatus, render, status_of

NOW = 1000.0
NODES = {"hospital_4": "delta", "hospital_5": "alpha", "hospital_6": "beta"}


def node_of(member_id: str) -> str:
    if member_id not in NODES:
        raise UnknownClientError(member_id)
    return NODES[member_id]


def link(node: str, *, up: bool, reason: str = "") -> LinkStatistics:
    return LinkStatistics(node, up, reason, 2, 10, 1_500_000, 8, 900, 0, 64, 1, 4)


def status(**changes: object) -> NodeStatus:
    basket = MemberFacts(
        id="basket/health",
        role="basket",
        state="collecting",
        round_id=4,
        waiting=(
            Waiting("basket/health", "contributions", 3, 10, ("hospital_4", "hospital_6", "zoe"), 988.0, 1018.0),
            Waiting("basket/health", "a close", 0, 1, (), 999.0, math.inf),
        ),
        mailbox=MailboxStatistics(8192, 3, 0, 17, 900, 1, 2, 3, 4),
    )
    client = MemberFacts(
        id="hospital_5", role="client", state="idle", epsilon_spent=0.25, epsilon_budget=math.inf, num_rows=340
    )
    facts: dict[str, object] = {
        "node": "alpha",
        "pid": 77,
        "federation": "fed",
        "federation_digest": bytes(range(32)),
        "epoch": 2,
        "now": NOW,
        "started_at": NOW - 7300,
        "listening": "127.0.0.1:7000",
        "transport": TransportStatistics(
            {"delta": link("delta", up=False, reason="refused"), "beta": link("beta", up=True)}, {"bad key": 2}
        ),
        "link_changed_at": {"delta": NOW - 20},
        "members": (basket, client),
        "node_of": node_of,
        "seen_at": {"hospital_4": NOW - 12, "hospital_6": NOW - 1},
        "refusals": {"signature does not hold": 5},
        "failures": ("journal is full",),
        "outbox_bytes": 12_000,
        "outbox_records": 20,
        "unlogged": 9,
    }
    return status_of(**{**facts, **changes})  # type: ignore[arg-type] - a table of arguments


def test_who_is_waited_for_is_said_with_when_they_were_last_seen_and_until_when() -> None:
    text = " ".join(render(status()).split())
    assert (
        "basket/health: waiting for contributions, 3 of 10: hospital_4 last seen 12 s ago, no link to delta, "
        "hospital_6 last seen 1 s ago, zoe never seen, no link to any known node "
        "(for 12 s already, until 18 s from now)"
    ) in text
    assert "waiting for a close, 0 of 1 (for 1 s already, no deadline)" in text


def test_the_text_shows_links_members_refusals_and_failures() -> None:
    text = render(status())
    for part in (
        "node alpha of fed, epoch 2, up 2 h, listens on 127.0.0.1:7000, pid 77",
        "down: refused",
        "1.5 MB",
        "collecting",
        "3 of 8192, 10 lost",
        "refused 5 times: signature does not hold",
        "no link, 2 times: bad key",
        "failed: journal is full",
        "9 log records were not written",
        "outbox 20 packets, 12.0 kB",
    ):
        assert part in text
    assert next(line for line in text.splitlines() if line.startswith("beta")).split()[1:3] == ["up", "-"]
    assert "0.25" in text


def test_nothing_is_lost_on_the_way_through_json_and_nothing_is_infinite() -> None:
    one = status()
    plain = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert NodeStatus.from_json(plain) == one
    assert plain["members"][0]["waiting"][0]["missing"][0] == {
        "id": "hospital_4",
        "node": "delta",
        "linked": False,
        "seen_s_ago": 12.0,
    }
    assert plain["members"][1]["epsilon_budget"] is None
    assert plain["links"][0]["counts"]["sent_bytes"] == 1_500_000


def test_reasons_without_end_are_counted_together() -> None:
    made_up = {f"nonsense {number}": 1 for number in range(1000)}
    shown = status(refusals={"often": 7, **made_up}).refusals
    assert len(shown) == REASONS_MAX + 1
    assert shown["often"] == 7
    assert sum(shown.values()) == 1009


def test_a_node_alone_has_a_status_too() -> None:
    text = render(status(transport=TransportStatistics({}), members=(), refusals={}, failures=(), unlogged=0))
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("changes", [{"more": 1}, {"links": [{"node": "x"}]}, {"members": None}])
def test_a_status_of_another_version_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FederationError, match="another version"):
        NodeStatus.from_json({**status().to_json(), **changes})


def test_a_status_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        status().epoch = 3  # type: ignore[misc] - what is tested

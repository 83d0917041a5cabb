"""Waiting for a daemon from a script: what counts as reached, what is said meanwhile, and how it ends in vain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest

from actors.transport import TransportStatistics
from scarcity.errors import FederationError, NodeNotRunning
from scarcity.federation.effects import Waiting
from scarcity.node.watch.awaited import Goal, wait_until
from scarcity.node.watch.status import MemberFacts, NodeStatus, status_of


def status(models: Sequence[int] = (), epoch: int = 1, waiting: tuple[Waiting, ...] = ()) -> NodeStatus:
    return status_of(
        node="hub",
        pid=1,
        federation="f",
        federation_digest=bytes(32),
        epoch=epoch,
        now=10.0,
        started_at=0.0,
        listening="",
        transport=TransportStatistics({}),
        link_changed_at={},
        members=(MemberFacts(id="basket/kenya", role="basket", state="collecting", waiting=waiting),),
        node_of=lambda _: "hub",
        seen_at={},
        refusals={},
        models=models,
    )


class Daemon:
    """Answers the one after the other, the last one for ever, on a clock that only waiting moves."""

    def __init__(self, *answers: NodeStatus | Exception) -> None:
        self.answers = list(answers)
        self.now = 0.0
        self.said: list[str] = []

    def ask(self) -> Mapping[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer.to_json()

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, goal: Goal, timeout_s: float = 60.0) -> NodeStatus:
        said = wait_until(
            self.ask, goal, timeout_s=timeout_s, say=self.said.append, now=lambda: self.now, pause=self.pause
        )
        return NodeStatus.from_json(said)


def test_a_later_round_will_do_because_a_round_may_be_given_up() -> None:
    daemon = Daemon(status(), status(models=(1,)), status(models=(1, 4)))
    assert daemon.wait(Goal(round_id=2)).models == (1, 4)


def test_an_epoch_is_waited_for_and_both_must_be_there() -> None:
    daemon = Daemon(status(models=(3,)), status(epoch=2), status(models=(3,), epoch=2))
    assert daemon.wait(Goal(round_id=3, epoch=2)).epoch == 2
    assert daemon.said == ["waiting for epoch 2 (epoch 1 is in force); no member here waits for anybody"]


def test_a_daemon_that_is_about_to_start_is_waited_for() -> None:
    daemon = Daemon(NodeNotRunning("data/control.sock: no daemon runs here"), status(models=(1,)))
    assert daemon.wait(Goal(round_id=1)).models == (1,)
    assert daemon.said == ["data/control.sock: no daemon runs here"]


def test_it_says_for_whom_every_five_seconds_and_at_the_end() -> None:
    timer = Waiting("basket/kenya", "the end of the round", 0, 0, (), 0.0, 30.0)
    people = Waiting("basket/kenya", "contributions", 1, 3, ("h1", "h2"), 4.0, 30.0)
    daemon = Daemon(status(waiting=(timer, people)))
    with pytest.raises(
        FederationError, match=r"not reached within 11 s: waiting for a model of round 1 or later; bask"
    ):
        daemon.wait(Goal(round_id=1), timeout_s=11.0)
    assert len(daemon.said) == 3
    assert "; basket/kenya waiting for contributions, 1 of 3: h1 never seen, h2 never seen (for 6 s" in daemon.said[0]


def test_without_a_daemon_the_end_is_a_reason_too() -> None:
    with pytest.raises(FederationError, match=r"not reached within 0 s: no daemon runs here"):
        Daemon(NodeNotRunning("no daemon runs here")).wait(Goal(epoch=1), timeout_s=0.0)


def test_another_error_of_the_daemon_is_not_waited_through() -> None:
    with pytest.raises(FederationError, match="another user's"):
        Daemon(FederationError("the daemon is another user's")).wait(Goal(epoch=1))


def test_a_goal_asks_for_nothing_by_default() -> None:
    assert attrs.asdict(Goal()) == {"round_id": None, "epoch": None}
    assert Goal().missing(status()) == ""

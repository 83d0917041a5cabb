"""The page of a simulated run: what it shows, in what order, and that nothing in it is anything but text."""

from __future__ import annotations

import html
import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.federation.effects import Waiting
from sim.faults.plan import Crash, FaultPlan, Loss, Partition
from sim.timelines import render_timeline
from sim.timelines.bins import Outage
from sim.timelines.canvas import NARROW, WIDE, fit, width_of
from sim.timelines.drawing import draw, lane_names
from sim.timelines.lanes import MOST_MEMBERS, clusters_of, lanes_of, members_of, named_by, ticks_of, window_of
from sim.timelines.page import MOST_BYTES
from sim.worlds.built import WorldConfig
from tests.timeline_world import Outline, broken, crowded, pictures, run_of

EVIL = "<script>alert('x')</script>&\"]]>\x07\x00$"


def texts(page: str) -> list[str]:
    return [text.text or "" for svg in pictures(page) for text in svg.iter("text")]


# Who has a lane


def test_the_named_come_before_those_who_crashed_and_stand_in_the_order_of_roles() -> None:
    config = WorldConfig(clients=100, baskets=2)
    recording = attrs.evolve(
        run_of().recording,
        outages={f"c{i:04d}": (Outage(1.0, 2.0, crashes=i),) for i in range(100)},
    )
    found = lanes_of(config, [broken(1.0, "c0001 is down after the heal")], recording, most=6)
    assert found.members == ("coordinator", "basket/basket-0", "basket/basket-1", "c0001", "c0098", "c0099")
    assert found.left_out == 97


def test_a_quiet_run_has_lanes_of_roles_alone() -> None:
    run = run_of(outages={})
    assert run.lanes.members == ("coordinator", "basket/basket-0", "basket/basket-1")
    assert "6 clients that never crashed and that no violation names have no lane." in render_timeline(run)


@given(st.integers(1, 200), st.integers(0, 100))
def test_there_are_never_more_lanes_than_there_is_room_for(clients: int, named: int) -> None:
    config = WorldConfig(clients=clients, baskets=min(clients, 60))
    violations = [broken(1.0, member=f"c{i:04d}") for i in range(named)]
    found = lanes_of(config, violations, run_of().recording)
    assert len(found.members) <= MOST_MEMBERS
    assert len(set(found.members)) == len(found.members)
    assert list(found.members) == [member for member in members_of(config) if member in found.members]


@pytest.mark.parametrize(
    ("violation", "member"),
    [
        (broken(1.0, "nobody", member="c0002"), "c0002"),
        (broken(1.0, "c0001, of basket/basket-0: wrong"), "c0001"),
        (broken(1.0, "basket/basket-0 waits for c0001"), "basket/basket-0"),
        (broken(1.0, "nobody here"), ""),
        (broken(1.0, "x", member="somebody else"), ""),
    ],
)
def test_a_violation_is_about_who_it_names(violation: object, member: str) -> None:
    known = {"c0001", "c0002", "basket/basket-0"}
    assert named_by(violation, known) == member  # type: ignore[arg-type]  # parametrize says object


# Time


@pytest.mark.parametrize(
    ("until_s", "unit", "last"),
    [
        (60.0, "s", "60"),
        (0.5, "s", "0.5"),
        (3600.0, "min", "60"),
        (86_400.0, "h", "24"),
        (7.0, "s", "7"),
        (0.0, "s", "0"),
    ],
)
def test_the_axis_has_round_ticks_in_a_unit_that_fits(until_s: float, unit: str, last: str) -> None:
    said, ticks = ticks_of(until_s, 12)
    assert said == unit
    assert ticks[-1] == (until_s, last)
    assert len(ticks) <= 13


@given(st.floats(1e-3, 1e6), st.integers(2, 20))
def test_the_axis_is_never_crowded_and_never_empty(until_s: float, most: int) -> None:
    _unit, ticks = ticks_of(until_s, most)
    assert 2 <= len(ticks) <= most + 1
    assert all(0 <= at <= until_s * (1 + 1e-6) for at, _label in ticks)
    assert len({label for _at, label in ticks}) == len(ticks)


def test_a_fault_may_strike_until_the_heal() -> None:
    config = run_of().config
    assert window_of(Loss(0.1), config) == (0.0, 8.0)
    assert window_of(Crash(2.0, ("c0001",), down_s=1.0), config) == (2.0, 3.0)
    assert window_of(Crash(2.0, ("c0001",)), config) == (2.0, 8.0)
    assert window_of(Partition(3.0, 50.0, ("basket-0",)), config) == (3.0, 8.0)
    assert window_of(Crash(9.0, ("c0001",)), config) == (8.0, 8.0)


def test_violations_side_by_side_share_a_label() -> None:
    found = clusters_of([broken(1.0), broken(1.0, checker="RowsOnce"), broken(5.0)], [10.0, 12.0, 50.0], 10.0)
    assert [cluster.label for cluster in found] == ["1–2 OneModel, RowsOnce", "3 OneModel"]


def test_entries_that_do_the_same_are_told_apart() -> None:
    plan = FaultPlan((Loss(0.1), Loss(0.2)), (Crash(1.0, ("c0001",)),))
    assert lane_names(plan) == ("loss, network[0]", "loss, network[1]", "crash")


@given(st.text(max_size=300), st.floats(20, 400))
def test_what_does_not_fit_is_cut_to_its_room_on_one_line(text: str, room: float) -> None:
    said = fit(text, room)
    assert width_of(said) <= room
    assert said.isprintable()


# The page


def test_the_verdict_is_first() -> None:
    assert re.search(r"<body>\s*<header>\s*<h1[^>]*><span[^>]*>✓</span> Passed", render_timeline(run_of()))
    page = render_timeline(run_of(violations=[broken(4.5, member="c0003")]))
    assert re.search(r"<body>\s*<header>\s*<h1[^>]*><span[^>]*>✕</span> Failed: a promise was broken", page)
    assert "At 4.500 s, OneModel, c0003: two models" in page
    assert "<title>Failed: 6 clients, seed 7, mode none</title>" in page


def test_a_fault_that_never_struck_fails_the_run_and_is_drawn_otherwise() -> None:
    page = render_timeline(run_of(struck=0))
    assert "faults[0] (crash) never struck, so nothing was tested by it" in page
    assert "Failed: no promise was broken, but the run is not what was asked for" in page
    assert 'class="window never"' in page


def test_what_a_replay_found_wrong_is_a_reason() -> None:
    assert "not the same run" in Outline(render_timeline(run_of(), ["not the same run"])).text


def test_the_head_has_what_was_run_and_what_came_of_it() -> None:
    said = Outline(render_timeline(run_of(refusals={"stale": 5}))).text
    for known in (
        "6 clients in 2 baskets: seed 7, mode none, unit record, executor heap, 10 virtual seconds, the last 2 without",
        "scarcity 0",
        "numpy ",
        "1\u202f234packets in 10 virtual s",
        "01234567",
        "stale5",
        "Dead letters4",
    ):
        assert known in said, known


@pytest.mark.parametrize("num", [0, 1, 7, 100])
def test_every_violation_has_a_mark_in_both_drawings(num: int) -> None:
    page = render_timeline(run_of(violations=[broken(i / 10, member="c0001") for i in range(num)]))
    for svg in pictures(page):
        marks = [path for path in svg.iter("path") if path.get("class") == "violation"]
        assert len(marks) == num
        assert [(mark.findtext("title") or "").split(":")[0] for mark in marks] == [str(i + 1) for i in range(num)]
        assert len([path for path in svg.iter("path") if path.get("class") == "mark"]) == num
    assert page.count("<td>OneModel</td>") == num


def test_marks_are_on_top_of_everything() -> None:
    for svg in pictures(render_timeline(run_of(violations=[broken(4.0)]))):
        looks = [element.get("class") for element in svg]
        assert looks.index("violation") > max(i for i, look in enumerate(looks) if look in ("up", "strike", "deliver"))
        assert looks.index("heal") < looks.index("up")


def test_both_drawings_have_lanes_of_rounds_faults_members_and_packets() -> None:
    page = render_timeline(run_of())
    assert [svg.get("class") for svg in pictures(page)] == ["wide", "narrow"]
    for name in ("loss", "crash", "partition", "coordinator", "basket/basket-0", "c0001", "delivered", "lost"):
        assert texts(page).count(name) == 2, name
    assert "dead letters" not in texts(page)
    for svg in pictures(page):
        looks = [element.get("class") for element in svg.iter()]
        for look in (
            "round made",
            "round given-up",
            "round unended",
            "window",
            "strike",
            "up",
            "down",
            "refusal",
            "heal",
        ):
            assert look in looks, look


def test_a_drawing_says_in_words_what_it_shows() -> None:
    page = render_timeline(run_of(violations=[broken(4.0)]))
    outline = Outline(page)
    ids = [named["id"] for _tag, named in outline.tags if "id" in named]
    assert len(ids) == len(set(ids))
    labels = [named["aria-labelledby"] or "" for _tag, named in outline.tags if "aria-labelledby" in named]
    assert labels == ["wide-title wide-desc", "narrow-title narrow-desc"]
    assert set(" ".join(labels).split()) <= set(ids)
    assert "Violations: OneModel at 4.0 s." in (pictures(page)[0].findtext("desc") or "")


@pytest.mark.parametrize("checker", ["Liveness", "OneModel"])
def test_what_was_waited_for_is_told_when_liveness_failed(checker: str) -> None:
    wait = Waiting("coordinator", "baskets' aggregates", 1, 2, ("basket/basket-1",), 3.0, 9.0)
    run = run_of(violations=[broken(10.0, checker=checker)], waits=(wait,), num_waits=5)
    said = Outline(render_timeline(run)).text
    assert ("coordinatorbaskets' aggregates1 of 23.0009.000basket/basket-1" in said) is (checker == "Liveness")
    assert ("4 shorter waits are left out." in said) is (checker == "Liveness")


def test_who_is_down_at_the_end_is_waited_for() -> None:
    assert "c0001to be started: it is down" in Outline(render_timeline(run_of(down=("c0001",)))).text


def test_the_faults_have_a_table_with_whom_they_struck() -> None:
    said = Outline(render_timeline(run_of(on=tuple(f"c{i:04d}" for i in range(9))))).text
    assert "faults[1]partition38" not in said
    assert "faults[1]partition35groups basket-03c0000, c0001, c0002, c0003, c0004, c0005, … (9)" in said


def test_the_plan_is_there_as_a_file() -> None:
    assert 'groups = ["basket-0"]' in Outline(render_timeline(run_of())).text
    assert 'id="plan"' not in render_timeline(run_of(plan=FaultPlan()))


def test_the_same_run_gives_the_same_page() -> None:
    assert render_timeline(run_of()) == render_timeline(run_of())


# What is hostile, and what is large


def hostile(name: str) -> str:
    """A page of which every text that somebody else wrote is this one."""
    plan = FaultPlan((Loss(0.1, of=(name.replace("\x07\x00", ""),)),), ())
    wait = Waiting(name, name, 1, 2, (name,), 3.0, 9.0)
    run = run_of(
        violations=[broken(4.0, name, member=name, checker="Liveness")],
        plan=plan,
        refusals={name: 3},
        on=(name,),
        outages={name: (Outage(1.0, 2.0),)},
        waits=(wait,),
        num_waits=1,
        down=(name,),
    )
    return render_timeline(run, [name], {"scarcity": name})


def test_what_others_wrote_stays_text_wherever_it_is_written() -> None:
    page = hostile(EVIL)
    outline = Outline(page)
    assert outline.open == []
    assert len(pictures(page)) == 2  # XML: no control characters either
    assert "script" not in {tag for tag, _named in outline.tags}
    assert html.escape("<script>alert('x')</script>&\"") in page
    assert all(not name.startswith("on") for _tag, named in outline.tags for name in named)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    page = render_timeline(run_of(violations=[broken(4.0)]))
    assert not re.search(r"https?:|//\w+\.|@import|<script|<iframe|<img|javascript:|url\(", page)
    assert "default-src 'none'" in page


def test_a_page_stays_small_whatever_the_run() -> None:
    plan = FaultPlan((), tuple(Crash(1.0, (f"c{i % 300:04d}",), down_s=1.0 + i) for i in range(1000)))
    long = "c0001 " + "w" * 5000
    run = crowded(
        run_of(
            violations=[broken(i / 10, long, member="c0001", checker=f"Checker{i}") for i in range(100)],
            plan=plan,
            clients=300,
            baskets=60,
            on=tuple(f"c{i:04d}" for i in range(300)),
            refusals={f"{i}{long}": i for i in range(1000)},
        )
    )
    page = render_timeline(run)
    assert len(page.encode()) < MOST_BYTES
    assert "members crashed or were named; they have no lane for want of room." in page
    assert "976 more are in the table" in page
    assert "800 more are left out." in page


def test_a_run_of_no_time_has_a_page() -> None:
    run = run_of(plan=FaultPlan(), rounds=(), outages={}, refusals={}, until_s=0.0)
    config = attrs.evolve(run.config, until_s=0.0, heal_s=0.0)
    for frame in (WIDE, NARROW):
        assert "<svg" in draw(attrs.evolve(run, config=config), frame)


def test_no_text_leaves_a_drawing_and_no_number_is_odd() -> None:
    for svg in pictures(render_timeline(run_of(violations=[broken(i, checker="SomeLongChecker") for i in (0, 5, 10)]))):
        width = float((svg.get("viewBox") or "").split()[2])
        for text in svg.iter("text"):
            x, wide = float(text.get("x", "0")), width_of(text.text or "")
            left = {"end": x - wide, "middle": x - wide / 2}.get(text.get("text-anchor", ""), x)
            assert left >= -1.0, text.text
            assert left + wide <= width + 1.0, text.text
        assert not re.search(r"nan|inf|e-|--", " ".join(path.get("d", "") for path in svg.iter("path")))

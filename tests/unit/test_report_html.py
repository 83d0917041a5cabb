from __future__ import annotations

import functools
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest

pytest.importorskip("matplotlib", reason="the extra [report] is not installed")

from scarcity.cli.main import run
from scarcity.engine import Relation
from scarcity.node.data.prediction import Skills
from sim import commands
from sim.swarms.plan import Closing, Reason, Spending, Spent, Waited
from sim.swarms.report import Privacy, SwarmResult
from sim.swarms.report_file import require_report, write_report
from sim.swarms.report_html import render_page
from sim.swarms.swarm import run_swarm
from tests.swarm.summing import summing

KEYS = ("hierarchy", "graph", "effects", "skill", "budget", "timeline")
EVIL = "<script>alert('x')</script>&\"$x_1$"


def link(source: str, target: str, effect: float) -> Relation:
    return Relation("lagged", (source,), (target,), 1, effect, 0.05, 0.0)


def result_of(
    *, client: str = "c1", domain: str = "north", variable: str = "rain", released: bool = True
) -> SwarmResult:
    """Two clients, one of which fell silent; a round, or one that released nothing."""
    skills = Skills((variable, "y"), {"global": (0.5, 0.25), "alone": (0.25, -7.5)} if released else {})
    closing = (
        Closing(domain, 1, ("c2",), ((client, "silent at stage masked"),))
        if released
        else Closing(domain, 1, (), ((client, "silent at stage shares"), ("c2", "silent")), "too few")
    )
    return SwarmResult(
        seed=1,
        clients=2,
        baskets=1,
        rounds=int(released),
        seconds=1.0,
        relations=(link(variable, "y", 0.3), link("y", variable, -0.2)) if released else (),
        basket_relations={domain: (link(variable, "y", 0.3),)} if released else {},
        pooled_relations=(link(variable, "y", 0.25),),
        pooled_projected_relations=(link(variable, "y", 0.28),),
        prediction=skills,
        basket_prediction={domain: skills},
        privacy=Privacy("distributed", "record", 1.0, 1e-6, 0, (Spent("c2", "layer 1", 0.5),)),
        dropped=(Reason(client, "round 1: silent at stage masked"),),
        refused=(Reason("left", "too few rows"),),
        version="0",
        settings=("a note",),
        status=0 if released else 3,
        last_line="" if released else "nothing was released",
        seats=((client, domain), ("c2", domain)),
        closings=(closing,),
        waits=(
            Waited(1, f"basket/{domain}", "contributions", 10.0, 11.0, (client,), by_clock=True),
            Waited(1, f"basket/{domain}", f"stage masked of the secure sum in basket/{domain}", 11.0, 14.0, (client,)),
            Waited(1, "coordinator", "baskets' aggregates", 10.0, 14.0, (f"basket/{domain}",)),
        ),
        spendings=(Spending(1, "c2", 0.5), Spending(1, client, 0.0)),
    )


class Outline(HTMLParser):
    """What is open around what, and the texts of some elements."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[tuple[str, str], str] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.section = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id" and value]
        if tag == "section":
            self.section = dict(attributes)["id"] or ""
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes)))
            self.texts.setdefault((self.section, tag), "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open[-1][0] == tag
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for tag, _ in self.open:
            self.texts[self.section, tag] = self.texts.get((self.section, tag), "") + data


@pytest.mark.parametrize("released", [True, False])
def test_every_picture_is_there_with_its_alternative_text_and_a_table(released: bool) -> None:
    outline = Outline(render_page(result_of(released=released)))
    assert outline.open == []
    for key in KEYS:
        assert len(outline.texts[key, "title"]) > 5, key
        assert len(outline.texts[key, "desc"]) > 30, key
        assert outline.texts[key, "summary"], key
        assert outline.texts[key, "td"], key
        assert outline.texts[key, "svg"].strip(), key
    labelled = [value for tag, name, value in outline.attributes if (tag, name) == ("svg", "aria-labelledby")]
    assert labelled == [f"{key}-title {key}-desc" for key in KEYS]


def test_ids_are_unique_and_every_reference_finds_its_own() -> None:
    page = render_page(result_of())
    ids = Outline(page).ids
    assert len(ids) == len(set(ids))
    references = {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)}
    assert references
    assert references <= set(ids)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    page = render_page(result_of())
    assert not re.search(r"https?:|//\w+\.|@import|<script|<iframe|<img|javascript:", page)
    outline = Outline(page)
    for tag, name, value in outline.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src"):
            assert value.startswith("#") or value == "data:,", (tag, name, value)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("where", ["client", "domain", "variable"])
def test_what_a_user_named_stays_text_wherever_it_is_written(where: str) -> None:
    page = render_page(result_of(**{where: EVIL}))
    outline = Outline(page)
    assert outline.open == []
    assert "<script" not in page
    assert "script" not in {tag for tag, _, _ in outline.attributes}
    # All of it can be read in a table, the dollars too, which would be a formula to the drawing's own typesetter.
    assert html.escape(EVIL) in page
    assert any(EVIL in text for (_, tag), text in outline.texts.items() if tag == "td")


def test_letters_that_no_font_here_has_are_left_to_the_reader() -> None:
    page = render_page(result_of(client="病院一", variable="降水量\n\x07"))
    assert "病院一" in page
    assert "降水量" in Outline(page).texts["graph", "svg"]


def test_it_says_who_fell_silent_and_why_and_who_was_only_let_down() -> None:
    released = Outline(render_page(result_of()))
    assert "c1northfell silent0round 1: silent at stage masked" in released.texts["hierarchy", "table"]
    assert "c2northin every sum1-" in released.texts["hierarchy", "table"]
    assert "Refused, too few rows: left." in released.texts["hierarchy", "li"]
    assert "refusedlefttoo few rows" in released.texts["hierarchy", "table"]
    nothing = Outline(render_page(result_of(released=False)))
    assert "c2northits basket made no sum0round 1: its basket made no sum" in nothing.texts["hierarchy", "table"]
    assert "nothing was released" in nothing.texts["", "header"]


def test_the_timeline_names_whom_somebody_waited_for_in_vain() -> None:
    outline = Outline(render_page(result_of()))
    assert "basket north waited 1.0 s for clients' answers in vain: c1." in outline.texts["timeline", "li"]
    assert "1basket/northmasked inputs (masked)1.0004.000c1" in outline.texts["timeline", "table"]


def test_what_was_charged_in_a_round_that_never_ended_is_told() -> None:
    result = attrs.evolve(result_of(), spendings=())
    assert "1 clients had been charged, 0.5 at most" in Outline(render_page(result)).texts["budget", "li"]


def test_a_reproducible_run_says_that_it_was_not_private() -> None:
    result = result_of()
    seeded = attrs.evolve(result, privacy=attrs.evolve(result.privacy, reproducible=True))
    assert "was not private" not in render_page(result)
    assert "was not private" in render_page(seeded)


def test_the_same_result_gives_the_same_page() -> None:
    assert render_page(result_of()) == render_page(result_of())


# The file


def test_a_report_is_written_whole_with_the_rights_of_any_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "report.html", tmp_path / "plain"
    path.write_text("an older one")
    plain.write_text("")
    write_report(path, result_of())
    assert path.read_text().endswith("</html>\n")
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "report.html"]


def test_a_report_that_cannot_be_moved_to_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(Exception, match=r"--report .*report.html: "):
        write_report(tmp_path / "report.html", result_of())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("name", ["missing/report.html", "file/report.html", "-", "x" * 300])
def test_a_report_that_could_not_be_written_is_refused_before_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "run_swarm", lambda *_, **__: pytest.fail("it ran"))
    assert run(commands.swarm, ["--synthetic", "9", "--report", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"scarcity: --report {name}: ")


def test_without_the_extra_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sim.swarms.report_file.find_spec", lambda _: None)
    assert run(commands.swarm, ["--synthetic", "9", "--report", str(tmp_path / "report.html")]) == 2
    assert "pip install 'scarcity-federation[report]'" in capsys.readouterr().err


def test_the_command_writes_the_page_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "run_swarm", functools.partial(run_swarm, execute=summing()))
    path = tmp_path / "report.html"
    arguments = ["--synthetic", "9", "--privacy", "none", "--seed", "1", "--quiet", "--report", str(path)]
    assert run(commands.swarm, arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Report with pictures: {path}"
    assert "Report of a swarm of 9 clients" in path.read_text()
    assert run(commands.swarm, [*arguments, "--json", "-"]) == 0
    assert capsys.readouterr().out.endswith("}\n")


def test_a_report_that_may_be_written_is_not_touched_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("an older one")
    require_report(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "an older one"
    assert len(list(tmp_path.iterdir())) == 1

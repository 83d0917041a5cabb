"""The line scanner against documents whose lines are known because they are written here, and against `tomllib`."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.node.setup.fields import Location
from scarcity.node.setup.toml_lines import key_lines, line_of

NAMES = st.one_of(st.from_regex(r"[A-Za-z0-9_\-]{1,6}", fullmatch=True), st.text("ab .#='\"[]\\é", max_size=5))
VALUES = st.sampled_from(
    [
        "1",
        '"a # b = [c]"',
        "'it \\'",
        '"""one\n[two]\nthree = 3 \\""" x"""',
        "'''a\n# b\n[c]'''",
        '"""a"""""',
        "[1, # [x]\n 2,\n]",
        '{ a = 1, b = "}" }',
        "[\n { c = '[' },\n]  # tail = 1",
        "1979-05-27T07:32:00Z",
        "[[1], [2, [3]]]",
    ]
)
NOISE = st.sampled_from(["", "\n", "# key = 1 [x]\n", "  \t\n", "\r\n"])


def written(name: str, style: int) -> str:
    if style == 0 and name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name):
        return name
    if style == 1 and "'" not in name:
        return f"'{name}'"
    return json.dumps(name, ensure_ascii=False)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Location, int]]:
    """A document of keys, tables and arrays of tables, and where each of them stands."""
    text = ""
    lines: dict[Location, int] = {}

    def add(place: Location, words: str) -> None:
        nonlocal text
        text += draw(NOISE) + draw(st.sampled_from(["", "  "]))
        lines[place] = text.count("\n") + 1
        text += words + draw(st.sampled_from(["\n", " # c\n", "\r\n"]))

    def keys(place: Location) -> None:
        for name in draw(st.lists(NAMES, max_size=3, unique=True)):
            add((*place, name), f"{written(name, draw(st.integers(0, 2)))} = {draw(VALUES)}")

    keys(())
    taken = {place[0] for place in lines}
    for name in draw(st.lists(NAMES.filter(lambda n: n not in taken), max_size=3, unique=True)):
        header = written(name, draw(st.integers(0, 2)))
        count = draw(st.integers(0, 3))
        if not count:
            add((name,), f"[ {header} ]")
            keys((name,))
        for i in range(count):
            add((name, i), f"[[{header}]]")
            lines.setdefault((name,), lines[(name, i)])
            keys((name, i))
            if (name, i, "sub") not in lines:
                add((name, i, "sub"), f"[{header}.sub]")
    return text, lines


@given(documents())
def test_every_key_is_found_on_its_line(document: tuple[str, dict[Location, int]]) -> None:
    text, lines = document
    tomllib.loads(text)
    assert key_lines(text) == lines


@given(st.text("ab=.[]\"'#\n\\{} ", max_size=40))
def test_the_scanner_ends_on_any_text(text: str) -> None:
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b.c = 1\n'a'.b.\"d e\" = 2", {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "b", "d e"): 2}),
        ("[[x]]\n[[x.y]]\n[[x.y]]\nk=1\n[[x]]\n[[x.y]]\nk=2", {("x", 0, "y", 1, "k"): 4, ("x", 1, "y", 0, "k"): 7}),
        ('"k\\u0061" = 1', {("ka",): 1}),
    ],
)
def test_dotted_quoted_and_nested(text: str, expected: dict[Location, int]) -> None:
    assert expected.items() <= key_lines(text).items()


def test_what_is_not_there_is_laid_at_what_is_around_it() -> None:
    lines = key_lines("a = 1\n\n[[b]]\nc = {d = 1}\n")
    assert line_of(lines, ("b", 0, "missing")) == 3
    assert line_of(lines, ("b", 0, "c", "d")) == 4
    assert line_of(lines, ("missing",)) == 1

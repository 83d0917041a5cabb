"""Each field of a roster and of a request, forged, cut short, left out or of another kind: one error that names it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.errors import ConfigError
from scarcity.node.setup.directory import (
    MAX_SIZE_BYTES,
    directory_json,
    parse_directory,
    read_directory,
    sign_directory,
    verify_directory,
)
from scarcity.node.setup.request import parse_request, read_request
from tests.keys_world import NOW, OPERATOR, OPERATOR_KEY, directory, public, remembering, request

ROSTER = json.loads(directory_json(sign_directory(remembering(), OPERATOR)))
REQUEST = json.loads(request(renewed=("h1",))[1])
PLACE = Path("file.json")
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every field of a document, containers too."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def at(document: Any, place: Place) -> Any:
    for key in place:
        document = document[key]
    return document


def changed(document: Any, place: Place, value: Any) -> bytes:
    other = copy.deepcopy(document)
    at(other, place[:-1])[place[-1]] = value
    return json.dumps(other).encode()


def without(document: Any, place: Place) -> bytes:
    other = copy.deepcopy(document)
    del at(other, place[:-1])[place[-1]]
    return json.dumps(other).encode()


def roster_refused(data: bytes) -> str:
    """Return why `read_directory` would refuse these bytes."""
    try:
        signed = parse_directory(data, PLACE)
    except ConfigError as error:
        return str(error)
    return "" if verify_directory(signed, OPERATOR_KEY) else "not signed"


def request_refused(data: bytes) -> str:
    try:
        parse_request(data, PLACE)
    except ConfigError as error:
        return str(error)
    return ""


def forged(value: Any) -> Any:
    """Another value of the same kind, as sound as the old one by itself."""
    if isinstance(value, str) and len(value) in (64, 128) and all(c in "0123456789abcdef" for c in value):
        return ("1" if value[0] == "0" else "0") + value[1:]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"client": "basket", "hub.example:7400": "evil.example:1", "": "evil.example:1"}.get(value, f"{value}x")
    if isinstance(value, dict):
        return dict(list(value.items())[:-1])
    return value + 1 if isinstance(value, int | float) else value[:-1]


JUNK = [
    None,
    True,
    0,
    -1,
    1.5,
    1e400,
    10**30,
    "",
    "\x00",
    "é" * 200,
    "A" * 64,
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    "..",
    "a/b",
]


@pytest.mark.parametrize("place", list(places(ROSTER)), ids=str)
def test_a_field_of_a_roster_that_is_forged_junk_or_missing_is_refused(place: Place) -> None:
    assert roster_refused(changed(ROSTER, place, forged(at(ROSTER, place))))
    assert roster_refused(without(ROSTER, place))
    for junk in JUNK:
        if junk != at(ROSTER, place):
            why = roster_refused(changed(ROSTER, place, junk))
            assert why, junk
            assert "\n" not in why


@pytest.mark.parametrize("place", list(places(REQUEST)), ids=str)
def test_a_field_of_a_request_that_is_forged_junk_or_missing_is_refused(place: Place) -> None:
    assert request_refused(changed(REQUEST, place, forged(at(REQUEST, place))))
    assert request_refused(without(REQUEST, place))
    for junk in JUNK:
        if junk != at(REQUEST, place):
            why = request_refused(changed(REQUEST, place, junk))
            assert why.startswith("file.json: "), junk
            assert "\n" not in why


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            changed(ROSTER, ("nodes", 0, "key"), "00"),
            "nodes[0].key: expected 64 lower-case hexadecimal digits",
        ),
        (
            changed(ROSTER, ("nodes", 1, "members", 0, "role"), "boss"),
            "nodes[1].members[0].role: expected one of client",
        ),
        (changed(ROSTER, ("epoch",), "1"), "epoch: expected a whole number"),
        (changed(ROSTER, ("nodes", 0, "extra"), 1), "nodes[0].extra: unknown; expected one of name, key, address"),
        (changed(ROSTER, ("nodes",), 3), "nodes: expected a list of groups"),
        (without(ROSTER, ("signature",)), "signature: missing"),
        (b'{"epoch": 1, "epoch": 2}', "not JSON: key 'epoch' occurs twice"),
        (b'{"epoch": NaN}', "not JSON: NaN is no number"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"[]", "expected a group of format"),
    ],
)
def test_the_error_names_file_and_field(data: bytes, words: str) -> None:
    assert words in roster_refused(data)
    assert roster_refused(data).startswith("file.json: ")


@given(st.data())
def test_a_roster_cut_short_or_with_other_bytes_is_never_taken_for_another(data: st.DataObject) -> None:
    whole = json.dumps(ROSTER).encode()
    start = data.draw(st.integers(0, len(whole) - 1))
    other = whole[:start] + data.draw(st.binary(max_size=4)) + whole[start + data.draw(st.integers(0, 3)) :]
    try:
        signed = parse_directory(other, PLACE)
    except ConfigError:
        return
    assert signed.directory == remembering() or not verify_directory(signed, OPERATOR_KEY)


def test_every_prefix_of_a_request_is_refused() -> None:
    whole = json.dumps(REQUEST).encode()
    assert all(request_refused(whole[:n]) for n in range(len(whole)))


def test_signatures_of_one_document_do_not_serve_another() -> None:
    other = json.loads(directory_json(sign_directory(directory(epoch=2), OPERATOR)))
    for name in ("signature", "roster_signature"):
        assert roster_refused(changed(ROSTER, (name,), other[name])) == "not signed"
        assert roster_refused(changed(ROSTER, (name,), ROSTER["signature" if name[0] == "r" else "roster_signature"]))


def test_a_member_cannot_be_put_into_a_request_that_its_key_has_not_signed() -> None:
    other = json.loads(request("evil", link="evil")[1])
    for i in range(2):
        mixed = copy.deepcopy(REQUEST)
        mixed["members"][i] = other["members"][i]
        assert "signature" in request_refused(json.dumps(mixed).encode())


def test_an_old_key_whose_word_is_another_keys_is_refused() -> None:
    data = changed(REQUEST, ("members", 0, "previous_key"), public("h2").hex())
    assert "signature" in request_refused(data)
    data = changed(REQUEST, ("members", 0, "previous_signature"), REQUEST["members"][0]["signature"])
    assert "members[0].previous_signature: it is not that of the old key of 'h1'" in request_refused(data)


def test_the_reference_page_has_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "keys.md").read_text(encoding="utf-8")
    for document in (ROSTER, REQUEST):
        for place in places(document):
            name = str(next(part for part in reversed(place) if isinstance(part, str)))
            assert f".{name}`" in page or f"`{name}" in page, name


def test_no_more_is_read_of_a_huge_file_than_of_an_honest_one(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file of a terabyte
    with pytest.raises(ConfigError, match=rf"huge\.json: more than {MAX_SIZE_BYTES} bytes"):
        read_directory(path, OPERATOR_KEY, NOW)
    with pytest.raises(ConfigError, match="more than"):
        read_request(path)
    for missing in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_directory(missing, OPERATOR_KEY, NOW)

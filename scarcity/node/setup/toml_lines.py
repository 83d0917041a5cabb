"""On which line a key of a TOML file stands: `tomllib` does not say, and an error without a line is hard to act on.

The scanner walks text that `tomllib` has taken already, so it need not judge, only find its way: headers, dotted and
quoted keys, and values to step over. Keys inside inline tables and arrays are not told apart; they stand where their
value begins.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

from scarcity.node.setup.fields import Location

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_\-]+")
_ONE_LINE: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'")
# The closing three quotes may follow one or two that belong to the text.
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""{1,3}|' + r"'''.*?'''{1,3}|" + _ONE_LINE.pattern,
    re.DOTALL,
)


def key_lines(text: str) -> dict[Location, int]:
    """Return place -> line, from 1, of every key, table and member of an array of tables.

    Args:
        text: what `tomllib` parses without an error; for other text the answer is incomplete.
    """
    return _Scanner(text).scan()


def line_of(lines: dict[Location, int], at: Location) -> int:
    """Return the line of a place, or of the nearest place around it that is known; 1 for the file."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._counted_to, self._line = 0, 1
        self._lines: dict[Location, int] = {}
        self._last: dict[Location, int] = {}  # array of tables -> index of its newest member
        self._table: Location = ()

    def scan(self) -> dict[Location, int]:
        while self._skip(_BLANK) or self._at < len(self._text):
            if self._at >= len(self._text):
                break
            before = self._at
            line = self._line_here()
            if self._text[self._at] == "[":
                self._header(line)
            else:
                self._note((*self._table, *self._keys()), line, len(self._table))
            self._value()
            if self._at == before:
                self._at += 1
        return self._lines

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match[0] if match else ""

    def _keys(self) -> list[str]:
        """Step over a dotted key and return its parts."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            bare = self._skip(_BARE)
            quoted = "" if bare else self._skip(_ONE_LINE)
            if not bare and not quoted:
                return parts
            parts.append(bare or tomllib.loads(f"key = {quoted}")["key"])
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _header(self, line: int) -> None:
        """Step over `[a.b]` or `[[a.b]]`; names on the way that are arrays mean their newest member."""
        is_array = self._text.startswith("[[", self._at)
        self._at += 1 + is_array
        parts = self._keys()
        self._at += 1 + is_array
        place: Location = ()
        for i, part in enumerate(parts):
            place = (*place, part)
            if is_array and i == len(parts) - 1:
                self._last[place] = self._last.get(place, -1) + 1
            if place in self._last:
                self._lines.setdefault(place, line)
                place = (*place, self._last[place])
        # The tables of a new member begin anew.
        if is_array:
            self._last = {p: n for p, n in self._last.items() if p[: len(place)] != place}
        self._table = place
        self._note(place, line, 0)

    def _note(self, place: Location, line: int, above: int) -> None:
        for length in range(above + 1, len(place) + 1):
            self._lines.setdefault(place[:length], line)

    def _value(self) -> None:
        """Step over what follows to the end of its last line."""
        depth = 0
        while self._at < len(self._text):
            if self._skip(_STRING):
                continue
            sign = self._text[self._at]
            if sign == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
                continue
            if sign == "\n" and depth <= 0:
                return
            depth += (sign in "[{") - (sign in "]}")
            self._at += 1

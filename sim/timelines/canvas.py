"""An SVG drawing with time from left to right: lanes below one another, each with its label.

A wide one has the labels left of the lanes, a narrow one above them; both have texts that can be read at their own
width. Nothing is measured in a font: characters are taken to be as wide as those of a wide one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Final

import attrs

_TEXT: Final = 12.0
_ADVANCE: Final = 0.56  # of a character, in sizes: the mean of DejaVu Sans's, one of the wider fonts
_HEAD: Final = 24.0
_LABEL: Final = 15.0  # above a lane


def number(value: float) -> str:
    """Return a coordinate, short: a tenth of a unit is a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def width_of(text: str) -> float:
    """Return about how wide a text is."""
    return _TEXT * sum(1.0 if unicodedata.east_asian_width(c) in "WF" else _ADVANCE for c in text)


def _printable(text: str) -> str:
    """Return a text for XML, which takes no control characters."""
    return escape("".join(c if c.isprintable() else " " for c in text))


def fit(text: str, room: float) -> str:
    """Return a text on one line, at most `room` wide; the middle goes."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if width_of(line) <= room:
        return line
    kept = min(len(line), int(room / (_TEXT * _ADVANCE)))
    while kept and width_of(short := f"{line[: -(-kept // 2)]}…{line[len(line) - kept // 2 :]}") > room:
        kept -= 1
    return short if kept else "…"


@attrs.frozen
class Frame:
    """The measures of a drawing.

    Attributes:
        key: every id inside starts with it.
        width: of the drawing.
        gutter: width of what is left of the lanes, for labels; 0: they are above.
        ticks: about how many the axis has room for.
    """

    key: str
    width: float
    gutter: float
    ticks: int

    @property
    def right(self) -> float:
        """Where the lanes end."""
        return self.width - 10.0


WIDE: Final = Frame("wide", 960.0, 210.0, 12)
NARROW: Final = Frame("narrow", 360.0, 0.0, 5)


class Canvas:
    """A drawing in the making.

    Args:
        frame: its measures.
        until_s: end of the run.

    Attributes:
        y: where what comes next starts.
        until_s: end of the run.
    """

    def __init__(self, frame: Frame, until_s: float) -> None:
        self.frame = frame
        self.y = 4.0
        self._left = max(frame.gutter, 6.0)
        self._scale = (frame.right - self._left) / until_s if until_s > 0 else 0.0
        self.until_s = until_s
        self._behind: list[str] = []
        self._parts: list[str] = []

    def x(self, at: float) -> float:
        """Return where an instant is."""
        return self._left + self._scale * min(max(at, 0.0), self.until_s)

    def add(self, part: str, *, behind: bool = False) -> None:
        """Add an element."""
        (self._behind if behind else self._parts).append(part)

    def path(self, look: str, moves: Sequence[str], title: str = "", *, stroke: float = 0.0) -> None:
        """Add a path, if there is something to draw."""
        if moves:
            wide = f' stroke-width="{number(stroke)}"' if stroke else ""
            said = f"><title>{_printable(title)}</title></path>" if title else "/>"
            self.add(f'<path class="{look}"{wide} d="{"".join(moves)}"{said}')

    def rect(self, look: str, at: float, until: float, y: float, height: float, *, behind: bool = False) -> None:
        """Add a box from an instant until another, at least two units wide."""
        x = min(self.x(at), self.frame.right - 2.0)
        wide = max(2.0, self.x(until) - x)
        self.add(
            f'<rect class="{look}" x="{number(x)}" y="{number(y)}" width="{number(wide)}" height="{number(height)}"/>',
            behind=behind,
        )

    def text(self, look: str, x: float, y: float, text: str, anchor: str = "start") -> None:
        """Add a text; `y` is its base line."""
        at_end = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.add(f'<text class="{look}" x="{number(x)}" y="{number(y)}"{at_end}>{_printable(text)}</text>')

    def heading(self, text: str) -> None:
        """Start a group of lanes."""
        self.text("head", 0.0, self.y + 16.0, text)
        self.y += _HEAD

    def lane(self, label: str, tally: str, height: float, more: str = "") -> float:
        """Start a lane and return where its band starts; `more` stands under the label where there is room."""
        gutter = self.frame.gutter
        if not gutter:
            tally = ", ".join(filter(None, (tally, more)))
            room = self.frame.right - width_of(tally) - 10.0
            self.text("name", 6.0, self.y + 11.0, fit(label, room))
            self.text("tally", self.frame.right, self.y + 11.0, tally, "end")
            self.y += _LABEL + height + 3.0
            return self.y - height - 3.0
        base = self.y + (height / 2 + 4.0 if not more else 14.0)
        self.text("name", 0.0, base, fit(label, gutter - 18.0 - width_of(tally)))
        self.text("tally", gutter - 10.0, base, tally, "end")
        if more:
            self.text("tally", gutter - 10.0, base + 14.0, more, "end")
        self.y += height + 3.0
        return self.y - height - 3.0

    def svg(self, title: str, alternative: str) -> str:
        """Return the element, to be put into a page as it is."""
        key, said = self.frame.key, _printable(alternative)
        return (
            f'<svg class="{key}" viewBox="0 0 {number(self.frame.width)} {number(self.y)}" role="img" '
            f'aria-labelledby="{key}-title {key}-desc">\n'
            f'<title id="{key}-title">{_printable(title)}</title>\n<desc id="{key}-desc">{said}</desc>\n'
            + "\n".join((*self._behind, *self._parts))
            + "\n</svg>\n"
        )

"""A drawing as SVG inside a page: matplotlib draws, and what the page must not hold is taken out.

Every picture is `WIDTH` units wide, a unit being a CSS pixel on a phone, and is scaled up on wider screens: so one
drawing is legible on both. Text stays text, for readers, searches and fonts of other scripts. No picture says anything
by colour alone.
"""

from __future__ import annotations

import functools
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from xml.etree import ElementTree as ET

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from sim.pages import Table

WIDTH: Final = 340.0
# Okabe and Ito's palette: told apart with any kind of colour vision, and by lightness in print.
BLUE: Final = "#0072B2"
RED: Final = "#B4450A"
GREEN: Final = "#007A5A"
INK: Final = "#1a1a1a"
GREY: Final = "#6b6b6b"
PALE: Final = "#d9d9d9"
FILL: Final = "#eef4fa"  # of bars, under their hatch
# Behind a text that lines may cross.
BEHIND: Final = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
# Texts are measured in the font that comes with matplotlib; Verdana, the nearest in width, stands in on other machines.
_MEASURED: Final = "DejaVu Sans"
_FONTS: Final = "'DejaVu Sans', Verdana, 'Bitstream Vera Sans', sans-serif"
_FONT_SIZE: Final = 20.0
_FONT: Final = FontProperties(family=[_MEASURED], size=_FONT_SIZE)
_UNITS_PER_INCH: Final = 72.0  # of matplotlib's SVG
# Keys are literals in some versions of matplotlib's types and strings in others.
_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    # Ids and names are a user's: a dollar in them starts no formula.
    "text.parse_math": False,
    "font.family": [_MEASURED],
    "font.size": 11.0,
    "axes.edgecolor": GREY,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
}
_XLINK: Final = "{http://www.w3.org/1999/xlink}"
_REFERENCE: Final = re.compile(r"url\(#([^)]+)\)")
_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@attrs.frozen
class Picture:
    """One picture of the page.

    Attributes:
        key: identifier, unique on the page.
        title: heading.
        lead: what is to be seen, one or two sentences.
        svg: the drawing, with title and description inside.
        tables: at least one.
        notes: lines below the drawing.
        tall: much higher than wide; wide screens then put others beside it.
    """

    key: str
    title: str
    lead: str
    svg: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    tall: bool = False


def draw(key: str, title: str, alternative: str, height: float, paint: Callable[[Axes], None]) -> str:
    """Return an SVG element drawn by `paint`, to be put into a page as it is.

    Args:
        key: identifier of the picture; every id inside starts with it.
        title: the element's title.
        alternative: what the picture shows, for those who do not see it.
        height: in units.
        paint: draws into axes that fill the picture; their data are units, y downward, until it says otherwise.
    """
    with _quiet(), mpl.rc_context({**_SETTINGS, "svg.hashsalt": key}):
        figure = Figure(figsize=(WIDTH / _UNITS_PER_INCH, height / _UNITS_PER_INCH))
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), facecolor="none")
        axes.set(xlim=(0.0, WIDTH), ylim=(height, 0.0))
        axes.set_axis_off()
        paint(axes)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
    return _inline(out.getvalue(), key, title, alternative)


def place(axes: Axes, left: float, top: float, right: float, bottom: float) -> None:
    """Give axes that fill a picture margins in units, and show them."""
    height = axes.get_ylim()[0]
    axes.set_position((left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height))
    axes.set_axis_on()


def fit_line(text: str, room: float, size: float) -> str:
    """Return text for a picture: one line, printable, at most `room` units wide; the middle goes, the table has it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if measure(line, size) <= room:
        return line
    kept = len(line)
    while kept and measure(line[: -(-kept // 2)] + "…" + line[len(line) - kept // 2 :], size) > room:
        kept -= 1
    return line[: -(-kept // 2)] + "…" + line[len(line) - kept // 2 :]


def measure(text: str, size: float) -> float:
    """Return about how many units a line is wide; by the measuring font."""
    return size * sum(_advance(character) for character in text)


@functools.cache
def _advance(character: str) -> float:
    """Return the width of a character at size 1. Letters that the font lacks are as wide as they are high."""
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    with _quiet():
        return float(text_to_path.get_text_width_height_descent(character, _FONT, ismath=False)[0]) / _FONT_SIZE


@contextmanager
def _quiet() -> Iterator[None]:
    """A letter that the measuring font lacks is drawn by the reader's own fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


def _inline(drawn: bytes, key: str, title: str, alternative: str) -> str:
    """Return matplotlib's document as an element of a page: no prolog, no metadata, no names from the web."""
    root = ET.fromstring(drawn)  # noqa: S314 - what matplotlib has just written
    _strip(root)
    names = {name: f"{key}-{name}" for element in root.iter() if (name := element.get("id"))}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for attribute, value in list(element.attrib.items()):
            del element.attrib[attribute]
            element.set(attribute.removeprefix(_XLINK), names[value] if attribute == "id" else _renamed(value, names))
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{key}-title {key}-desc"}
    for place_at, (tag, text) in enumerate((("title", title), ("desc", alternative))):
        said = ET.Element(tag, {"id": f"{key}-{tag}"})
        said.text = text
        root.insert(place_at, said)
    return ET.tostring(root, encoding="unicode")


def _strip(element: ET.Element) -> None:
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
        else:
            _strip(child)


def _renamed(value: str, names: dict[str, str]) -> str:
    """Return an attribute with references to the new ids, and with fonts that other machines have."""
    if value.startswith("#"):
        return f"#{names.get(value[1:], value[1:])}"
    value = _REFERENCE.sub(lambda found: f"url(#{names.get(found[1], found[1])})", value)
    return value.replace(f"'{_MEASURED}'", _FONTS)

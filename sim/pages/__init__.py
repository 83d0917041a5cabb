"""What every page of ours has: one file with its style in it, no script, nothing fetched; and how it is written."""

from sim.pages.file import require_page, write_page
from sim.pages.frame import Fact, Table, as_table, document, facts, style

__all__ = [
    "Fact",
    "Table",
    "as_table",
    "document",
    "facts",
    "require_page",
    "style",
    "write_page",
]

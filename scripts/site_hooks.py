"""What MkDocs does not do by itself: pages from the repository's root, and the command's help as a page."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scarcity.cli.main import scarcity

ROOT: Final = Path(__file__).parents[1]
# A file of the root -> the page that it is in the site. Pages link to the file, as people read them in the repository.
ROOT_PAGES: Final = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_LINK: Final = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
COMMAND_PAGE: Final = "reference/command.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, COMMAND_PAGE, content=command_page()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    origin = next((name for name, target in ROOT_PAGES.items() if target == here), posixpath.join("docs", here))

    def rewrite(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[1]))
        inside = ROOT_PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if inside is None:
            return match[0]
        if (ROOT / target).is_dir():
            inside = posixpath.join(inside, "README.md")
        return f"]({posixpath.relpath(inside, posixpath.dirname(here) or '.')}{match[2] or ''})"

    return _LINK.sub(rewrite, markdown)


def command_page() -> str:
    """Return the help of every subcommand."""
    parts = ["# The command\n"]
    waiting: list[tuple[str, click.Command, click.Context | None]] = [("scarcity", scarcity, None)]
    while waiting:
        name, command, parent = waiting.pop(0)
        context = click.Context(command, info_name=name, parent=parent, max_content_width=100)
        parts.append(f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                if found is not None:
                    waiting.append((inner, found, context))
    return "\n".join(parts)

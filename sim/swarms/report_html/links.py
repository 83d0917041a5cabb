"""Links between different variables, as pictures name and order them."""

from __future__ import annotations

from collections.abc import Iterable

from scarcity.engine import Relation

Key = tuple[str, tuple[str, ...], tuple[str, ...], int]


def cross(relations: Iterable[Relation]) -> dict[Key, Relation]:
    """Return the links between different variables by key; a variable's own past is hardly news."""
    return {relation.key: relation for relation in relations if relation.kind != "persistent"}


def by_strength(relations: Iterable[Relation]) -> list[Relation]:
    """Return the links between different variables, strongest first."""
    return sorted(cross(relations).values(), key=lambda link: (-abs(link.effect), link.key))


def name_of(link: Relation) -> str:
    """Return a link's name for people."""
    return f"{', '.join(link.sources)} → {', '.join(link.targets)}, lag {link.lag}"

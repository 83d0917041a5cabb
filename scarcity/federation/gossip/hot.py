"""What a member still has to push: each item a few times, what was pushed least goes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from scarcity.federation.gossip.exchange import Exchange
from scarcity.federation.reader import Item, Key

Place = tuple[Key, bool]  # the flag marks the second half of a proof


class HotItems:
    """A queue of items by how often they were pushed, Models and proofs before contributions.

    Args:
        pushes: how often each is pushed.
    """

    def __init__(self, pushes: int) -> None:
        # Each a list of levels: those never pushed, those pushed once, ...
        self._urgent: list[dict[Place, Item]] = [{} for _ in range(pushes)]
        self._others: list[dict[Place, Item]] = [{} for _ in range(pushes)]

    def __len__(self) -> int:
        return sum(map(len, self._urgent)) + sum(map(len, self._others))

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(level.values() for level in (*self._urgent, *self._others))

    def heat_first(self, place: Place, item: Item) -> None:
        """Push a Model or half of a proof from now on, before any contribution."""
        self._urgent[0][place] = item

    def heat(self, contributions: Mapping[Place, Item]) -> None:
        """Push these from now on; what was hot at their places is current no longer (`keep`)."""
        self._others[0].update(contributions)

    def keep(self, exchange: Exchange) -> None:
        """Drop what has been superseded or barred: all but what is held, and both halves of proofs."""
        held, is_proof = exchange.held, exchange.is_proof
        for levels in (self._urgent, self._others):
            levels[:] = [
                {p: item for p, item in level.items() if held.get(p[0]) is item or is_proof(p[0], item)}
                for level in levels
            ]

    def keep_epoch(self, epoch: int) -> None:
        """Drop contributions of other epochs: peers take none, not even as half of a proof."""
        for levels in (self._urgent, self._others):
            levels[:] = [
                {p: item for p, item in level.items() if item.packet.header.epoch == epoch or not item.is_contribution}
                for level in levels
            ]

    def pushed(self, items: tuple[Item, ...]) -> None:
        """Learn that these were pushed once more."""
        gone, all_gone = set(map(id, items)), len(items) == len(self)
        for levels in (self._urgent, self._others):
            moved: dict[Place, Item] = {}
            for at, level in enumerate(levels):
                if all_gone:
                    levels[at], moved = moved, level
                    continue
                stay = {place: item for place, item in level.items() if id(item) not in gone}
                levels[at] = stay | moved
                moved = {place: item for place, item in level.items() if id(item) in gone}

"""What a model holds: the relations that a federation has found, in the words in which a party's own are told."""

from __future__ import annotations

from pathlib import Path

from scarcity.engine import relations_of
from scarcity.errors import InsufficientInputs, InvalidUpdate
from scarcity.node.data.alone import Discovery, Finding
from scarcity.node.data.model_file import Provenance, read_model


def relations_in(path: Path, *, alpha: float = 0.05, min_effect: float = 0.02) -> Discovery:
    """Return what a model file shows; where there is no fit, the finding says why.

    Args:
        path: of the model.
        alpha: false discovery rate.
        min_effect: smallest effect of interest.

    Raises:
        ConfigError: the file cannot be read or is no model, or a setting is out of range.
    """
    model = read_model(path)
    whose, rows = _whose(model.provenance), round(model.moments.rows)
    try:
        found = Finding(whose, rows, tuple(relations_of(model.fit(), alpha, min_effect)))
    except (InsufficientInputs, InvalidUpdate) as error:
        found = Finding(whose, rows, reason=str(error))
    return Discovery(model.schema, alpha, min_effect, (found,))


def _whose(made: Provenance) -> str:
    budget = f"epsilon {made.epsilon:g}" if made.epsilon else "no privacy"
    rounds = "1 round" if made.rounds == 1 else f"{made.rounds} rounds"
    return f"{made.clients} clients in {made.baskets} baskets, {rounds}, mode {made.mode}, {budget}"

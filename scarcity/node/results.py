"""What a federation has found so far, as a file: the sum of all models that this node's members have accepted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import scarcity
from scarcity.engine import Moments
from scarcity.engine.vector import Form
from scarcity.errors import LocalError, SchemaMismatchError
from scarcity.federation.packets import Model, TrustMode
from scarcity.federation.reconciler import model_moments
from scarcity.federation.roster import Roster
from scarcity.node.data.model_file import MAX_TEXT, ModelFile, Provenance, write_model
from scarcity.node.setup.config import FederationFile

log = logging.getLogger("scarcity.node")


class Results:
    """The model file of one node, written anew, whole or not at all, when a round has brought a model.

    Args:
        path: of the file; `scarcity predict` reads it.
        federation: schema and settings.
        form: layout of the vectors.
        roster: gives the roster in force, for how many take part.
        models: what earlier runs accepted, the same ones several times or not; read one by one.
    """

    def __init__(
        self,
        path: Path,
        federation: FederationFile,
        form: Form,
        roster: Callable[[], Roster],
        models: Iterable[Model] = (),
    ) -> None:
        self.path = path
        self._federation = federation
        self._form: Form = form
        self._roster = roster
        self._rounds: set[int] = set()
        self._left_out: set[int] = set()  # rounds with a model that cannot be added
        self._sum: Moments | None = None  # not the models: a federation that runs for years has thousands
        for model in models:
            self._add(model)

    @property
    def rounds(self) -> tuple[int, ...]:
        """The rounds whose models are in the sum."""
        return tuple(sorted(self._rounds))

    def keep(self, model: Model) -> bool:
        """Add a model and write the file; return whether it was new. One that cannot be added is left out, and logged.

        Raises:
            ConfigError: the file cannot be written; what it held is unchanged.
        """
        if not self._add(model):
            return False
        assert self._sum is not None, "a model was added"
        write_model(ModelFile(self._sum, self._provenance()), self.path, "model")
        return True

    def _add(self, model: Model) -> bool:
        if model.round_id in self._rounds:
            return False
        try:
            self._sum = self._with(model)
        except LocalError as error:
            if model.round_id not in self._left_out:  # once: every member of the node has it
                log.warning("the model of round %d is left out of the model file: %s", model.round_id, error)
            self._left_out.add(model.round_id)
            return False
        self._rounds.add(model.round_id)
        return True

    def _with(self, model: Model) -> Moments:
        schema = self._federation.schema
        if model.schema_hash != schema.hash:
            raise SchemaMismatchError(f"it is of schema {model.schema_hash.hex()[:12]}, not {schema.hash.hex()[:12]}")
        one = model_moments(schema, self._form, [model])
        assert one is not None, "a model has moments"
        return one if self._sum is None else self._sum + one

    def _provenance(self) -> Provenance:
        settings, budget = self._federation.settings, self._federation.budget
        protected = settings.mode is not TrustMode.NONE
        roster = self._roster()
        domains = [basket.domain for basket in roster.baskets]
        return Provenance(
            made_by=f"scarcity {scarcity.__version__}",
            note=f"federation {self._federation.federation}, epoch {roster.epoch}"[:MAX_TEXT],
            mode=settings.mode.value,
            unit=settings.unit.value,
            rule=settings.rule,
            epsilon=float(budget.epsilon) if protected else 0.0,
            delta=float(budget.delta) if protected else 0.0,
            clients=sum(len(roster.clients_of(domain)) for domain in domains),
            baskets=len(domains),
            rounds=len(self._rounds),
            reproducible=False,
        )

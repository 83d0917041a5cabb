"""`FederationClientAgent`: a client's discovery engine as a member of the federation.

The one place, beside the reconciler, where the protocol meets the engine: increments become updates, models become
evidence. What a client says to whom is `client.ClientCore`'s business.
"""

from __future__ import annotations

from scarcity.engine import Increment, OnlineDiscoveryEngine, record_layout
from scarcity.engine.vector import Form, vector_dimension
from scarcity.federation.packets import Model, Update
from scarcity.federation.privacy_guard import Layout, array_layout, clean_layout
from scarcity.federation.reconciler import merge_model


class FederationClientAgent:
    """Ties a discovery engine to the federation: it gives updates and merges models into the engine's store.

    Args:
        engine: the client's engine.
        client_id: the client's member id.
        form: layout of what is shared; None: "differenced" (unit record) where the schema has public scales, else
            "mean" (unit client). "centred" is for mode none only.
    """

    def __init__(self, engine: OnlineDiscoveryEngine, client_id: str, form: Form | None = None) -> None:
        self.engine = engine
        self.client_id = client_id
        self._form = form
        self._offered: tuple[Update, Increment] | None = None

    @property
    def form(self) -> Form:
        """The layout of what this client shares."""
        if self._form is not None:
            return self._form
        schema = self.engine.schema
        return "differenced" if schema is not None and schema.has_public_scales else "mean"

    @property
    def layout(self) -> Layout | None:
        """How the updates are laid out; None before the engine has a schema."""
        schema = self.engine.schema
        if schema is None:
            return None
        dimension = vector_dimension(schema, self.form)
        if self.form == "centred":
            return clean_layout(dimension, schema.hash)
        if self.form == "mean":
            return array_layout(dimension, schema.hash)
        record = record_layout(schema)
        return Layout(schema.hash, dimension, schema.lattice, record.sensitivity, record.noise_scales)

    def get_shareable_update(self) -> Update:
        """Return the update of the rows since the last accepted one; the same one until it is accepted.

        Raises:
            InsufficientInputs: too few new rows to form a product.
        """
        if self._offered is None:
            increment = self.engine.increment(self.form)
            schema = self.engine.schema
            assert schema is not None, "an engine with an increment has a schema"
            rows = increment.rows if self.form != "mean" else None
            update = Update(self.client_id, None, schema.hash, increment.vector, increment.weight, rows)
            self._offered = update, increment
        return self._offered[0]

    def update_for(self, round_id: int) -> Update | None:  # noqa: ARG002  a learner of another kind may need the round
        """Return the shareable update.

        Raises:
            InsufficientInputs: too few new rows to form a product.
        """
        return self.get_shareable_update()

    def accepted(self, update: Update) -> None:
        """Learn that an update is released: its rows are never offered again."""
        if self._offered is not None and update == self._offered[0]:
            self.engine.mark_released(self._offered[1])
            self._offered = None

    def resume(self, spent_until: int) -> None:
        """Go on after a crash: rows before this index are never offered again. Call it before rows are read.

        Args:
            spent_until: of the client's ledger, `recovery.rows_spent_until`; 0: nothing was spent.
        """
        self.engine.resume(spent_until)
        self._offered = None

    def receive_model(self, model: Model) -> None:
        """Merge a verified model into the engine's store, as evidence of scope "global"."""
        schema = self.engine.schema
        if schema is not None and schema.hash == model.schema_hash:
            merge_model(self.engine.store, schema, self.form, model)

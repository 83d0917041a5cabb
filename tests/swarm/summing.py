"""An executor without a federation: adds up what clients would contribute. What a swarm's driver must equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scarcity.engine import OnlineDiscoveryEngine, record_layout
from scarcity.federation.effects import BasketClosed, ContributionMade, ModelMade, Waiting
from scarcity.federation.packets import Aggregate, Model, Update
from sim.swarms.plan import Execute, Observer, Outcome, Record, Spent, SwarmPlan


def contribution(plan: SwarmPlan, index: int) -> Update:
    party = plan.source.parties[index]
    engine = OnlineDiscoveryEngine(plan.source.schema)
    engine.process_rows(party.rows, at=party.times.tolist())
    increment = engine.increment(plan.form)
    update = Update(party.id, 1, b"", increment.vector, increment.weight)
    return plan.attack(update, plan.source.schema.lags + 1) if party.id in plan.liars else update


def summing(*, noise_std: float = 0.0, before_model: Callable[[], None] = lambda: None) -> Execute:
    def execute(plan: SwarmPlan, observe: Observer) -> Outcome:
        record = Record()

        def tell(event: object) -> None:
            record(event, 0.0)  # type: ignore[arg-type]  # every event made below is one of `Event`
            observe(event, 0.0)  # type: ignore[arg-type]  # the same

        totals = []
        for domain in plan.source.domains:
            members = [i for i, party in enumerate(plan.source.parties) if party.domain == domain]
            observe(Waiting(f"basket/{domain}", "contributions", 0, len(members), (), 0.0, 60.0), 0.0)
            updates = [contribution(plan, i) for i in members]
            for update in updates:
                tell(ContributionMade(update.client_id, 1, "masked"))
            rng = plan.chance.generator("noise", domain)
            total = np.sum([u.vector for u in updates], axis=0)
            if noise_std:
                scales = noise_std * record_layout(plan.source.schema).noise_scales
                total = total + np.round(scales * rng.standard_normal(len(total))).astype(np.int64)
            weight = sum(u.weight for u in updates)
            aggregate = Aggregate(total / plan.aggregate_unit, weight, len(updates), "average", noise_std**2)
            tell(BasketClosed(f"basket/{domain}", 1, aggregate, tuple(u.client_id for u in updates), ()))
            totals.append(aggregate)
        before_model()
        weight = sum(a.weight for a in totals)
        vector = np.sum([a.total for a in totals], axis=0) * plan.aggregate_unit / weight
        std = noise_std * len(totals) ** 0.5
        model = Model(1, b"", vector, weight, sum(a.count for a in totals), std, b"")
        tell(ModelMade(model, tuple(f"basket/{d}" for d in plan.source.domains)))
        spent = [Spent(p.id, "layer 1, round 1", plan.epsilon) for p in plan.source.parties] if noise_std else []
        return record.outcome(tuple(spent))

    return execute

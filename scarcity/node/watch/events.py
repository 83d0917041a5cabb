"""What cores say of themselves, as a line for people and as fields for machines. No values of vectors."""

from __future__ import annotations

from scarcity.federation.effects import (
    BasketAbsent,
    BasketClosed,
    ContributionMade,
    Event,
    ModelAccepted,
    ModelMade,
    RoundAborted,
    RoundDeclined,
)


def round_of(event: Event) -> int:
    """Return the round that an event belongs to."""
    return event.model.round_id if isinstance(event, ModelMade | ModelAccepted) else event.round_id


def describe(event: Event) -> str:
    """Return an event as one line, without the name of who says it."""
    return f"round {round_of(event)}: {_what(event)}"


def _what(event: Event) -> str:
    match event:
        case ContributionMade():
            return f"contributed ({event.kind})"
        case RoundDeclined():
            return f"declined: {event.reason}"
        case BasketClosed():
            without = "".join(f"; without {who}: {why or 'silent'}" for who, why in event.missing)
            return f"aggregate of {len(event.members)} members{without}"
        case BasketAbsent():
            return f"absent: {event.reason} ({event.have} of {event.need} needed)"
        case ModelMade():
            model = event.model
            return f"model of {len(event.baskets)} baskets and {model.count} clients, weight {model.weight:g}"
        case ModelAccepted():
            return "holds the model"
        case RoundAborted():
            return f"given up: {event.reason}"

"""What a liar sends instead of its update, and the names of all byzantine behaviours.

`ATTACKS` are those of `scarcity swarm`: an attack gets the honest update of its own client and returns the forged one.
Counts are public and everybody checks them, so a liar that wants to be heard leaves the leading `num_public`
coordinates as they are. Norms are kept too: a forged vector that is longer than an honest one would be clipped and
noticed.

`BEHAVIOURS` are those of a fault plan. A `Forge` sees what its colluders would have sent honestly, all of one fault;
what nobody but the honest know it does not see, so with one liar alone the attacks that estimate a spread
(alie, min-max, min-sum) send the honest update. Lies about packets are `sim.faults.lies`'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs
import numpy as np

from scarcity.errors import ConfigError
from scarcity.federation.packets import FloatArray, Update

Attack = Callable[[Update, int], Update]


def sign_flip(update: Update, num_public: int = 0) -> Update:
    """Return the update with every coordinate behind the public ones negated.

    Args:
        update: the honest one.
        num_public: leading coordinates that others can check.

    Source: Li et al., AAAI 2019 (RSA), the sign-flipping attack with magnitude 1.
    """
    vector = -update.vector
    vector[:num_public] = update.vector[:num_public]
    return attrs.evolve(update, vector=vector)


ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType({"sign-flip": sign_flip})


def attack_named(name: str) -> Attack:
    """Return the attack of a name.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    if name not in ATTACKS:
        raise ConfigError(f"attack {name!r} is unknown; known are {', '.join(sorted(ATTACKS))}")
    return ATTACKS[name]


@attrs.frozen
class Scene:
    """What a liar knows when it forges an update.

    Attributes:
        own: shape (d,), its honest vector per unit of weight.
        honest: shape (n, d), the honest vectors of all colluders that have one, its own among them, by id.
        strength: of the behaviour.
        round_id: the round.
        rng: decides what is random.
    """

    own: FloatArray
    honest: FloatArray
    strength: float
    round_id: int
    rng: np.random.Generator

    @property
    def mean(self) -> FloatArray:
        """Mean of the honest vectors, shape (d,)."""
        return np.asarray(self.honest.mean(axis=0))

    @property
    def away(self) -> FloatArray:
        """Unit vector against the honest vectors' spread, shape (d,); zero when there is none.

        Source: Shejwalkar and Houmansadr, NDSS 2021, the "inverse standard deviation" perturbation.
        """
        spread = self.honest.std(axis=0)
        norm = float(np.linalg.norm(spread))
        return np.asarray(-spread / norm if norm else spread)


Forge = Callable[[Scene], FloatArray]


def _sign_flip(scene: Scene) -> FloatArray:
    return -scene.strength * scene.own


def _on_off(scene: Scene) -> FloatArray:
    return -scene.own if scene.round_id % max(1, int(scene.strength)) == 0 else scene.own


def _label_flip(scene: Scene) -> FloatArray:
    """What sums or means over rows become when the label, the rows' last column, is negated."""
    forged = scene.own.copy()
    forged[-1] *= -scene.strength
    return forged


def _ipm(scene: Scene) -> FloatArray:
    """Source: Xie, Koyejo, Gupta, UAI 2019 (inner product manipulation); strength is epsilon."""
    return -scene.strength * scene.mean


def _alie(scene: Scene) -> FloatArray:
    """Source: Baruch, Baruch, Goldberg, NeurIPS 2019 ("A little is enough"); strength is z."""
    return np.asarray(scene.mean - scene.strength * scene.honest.std(axis=0))


def _mimic(scene: Scene) -> FloatArray:
    """Source: Karimireddy, He, Jaggi, ICLR 2022; all copy the colluder of the lowest id."""
    return np.asarray(scene.honest[0])


def _gaussian(scene: Scene) -> FloatArray:
    deviation = scene.strength * float(np.sqrt(np.mean(scene.own**2)))
    return scene.rng.normal(0.0, deviation, scene.own.shape)


def _min_max(scene: Scene) -> FloatArray:
    """As far away as the two honest vectors furthest apart. Source: Shejwalkar and Houmansadr, NDSS 2021."""
    gaps = scene.mean - scene.honest
    furthest = max(float(np.sum((scene.honest - row) ** 2, axis=1).max()) for row in scene.honest)
    along = gaps @ scene.away
    # |gap + g * away| <= R for every row, solved for g; away is a unit vector.
    reach = -along + np.sqrt(np.maximum(0.0, along**2 + furthest - np.sum(gaps**2, axis=1)))
    return scene.mean + scene.strength * float(reach.min()) * scene.away


def _min_sum(scene: Scene) -> FloatArray:
    """As far, summed over all, as the honest vector furthest from the rest. Source: as min-max."""
    gaps = scene.mean - scene.honest
    most = max(float(np.sum((scene.honest - row) ** 2)) for row in scene.honest)
    # The gaps add up to zero, so the sum of |gap + g * away|^2 is n g^2 plus the sum of |gap|^2.
    reach = np.sqrt(max(0.0, most - float(np.sum(gaps**2))) / len(scene.honest))
    return scene.mean + scene.strength * float(reach) * scene.away


FORGES: Final[Mapping[str, Forge]] = MappingProxyType(
    {
        "sign-flip": _sign_flip,
        "on-off": _on_off,
        "label-flip": _label_flip,
        "ipm": _ipm,
        "alie": _alie,
        "mimic": _mimic,
        "gaussian": _gaussian,
        "min-max": _min_max,
        "min-sum": _min_sum,
    }
)


@attrs.frozen
class Behaviour:
    """What a byzantine client does.

    Attributes:
        meaning: in one line, with what its strength is.
        strength: its own, which a plan may change.
    """

    meaning: str
    strength: float = 1.0


BEHAVIOURS: Final[Mapping[str, Behaviour]] = MappingProxyType(
    {
        "sign-flip": Behaviour("sends its update negated, times strength"),
        "on-off": Behaviour("negates its update in every round that strength divides, and is honest in between", 2.0),
        "ipm": Behaviour("sends the colluders' mean negated, times strength"),
        "alie": Behaviour("sends the colluders' mean less strength standard deviations"),
        "mimic": Behaviour("sends what the colluder of the lowest id would send"),
        "gaussian": Behaviour("sends noise of strength times its update's root mean square"),
        "min-max": Behaviour("goes as far off as the colluders' largest distance, times strength"),
        "min-sum": Behaviour("goes as far off as the colluders' largest sum of distances, times strength"),
        "label-flip": Behaviour("sums rows whose last column, the label, is negated, times strength"),
        "noiseless": Behaviour("mode local: all send one vector without noise, strength times as long as their own"),
        "non-finite": Behaviour("mode none: sends NaN and infinity"),
        "equivocate": Behaviour("signs a second, negated contribution for every one, and sends both"),
        "dissensus": Behaviour("gossips a second, negated contribution of its own to half of its peers"),
        "replay": Behaviour("sends strength of its older packets again with every packet, to whomever"),
        "stale": Behaviour("says again what it said strength rounds ago"),
        "garbage": Behaviour("sends random bytes instead of content or signature, with probability strength"),
    }
)

"""What a loss is told by name: units, reductions, estimators, ratios, penalties. Read without torch."""

from typing import Literal, get_args

from klimb.declarations import require, require_known
from klimb.divergences.names import SlopeAtReference, check_divergence_name, slope_of_divergence

Level = Literal["token", "prefix", "sequence", "sequence-mean"]


LEVELS: tuple[str, ...] = get_args(Level)


SequenceLevel = Literal["sequence", "sequence-mean"]


SEQUENCE_LEVELS: tuple[str, ...] = get_args(SequenceLevel)


ReduceName = Literal["token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum"]


REDUCTIONS: tuple[str, ...] = get_args(ReduceName)


MAX_NEW_TOKENS = "max-new-tokens"
"""The reduction by the length that responses may have at most, which only a run knows: no loss is made with it."""


Reduce = ReduceName | Literal["max-new-tokens"] | int


Estimator = Literal["reinforce", "differentiable"]


ESTIMATORS: tuple[str, ...] = get_args(Estimator)


Ratio = Literal["recorded", "none"]


RATIOS: tuple[str, ...] = get_args(Ratio)


Anchor = Literal["mu", "ref"]


ANCHORS: tuple[str, ...] = get_args(Anchor)


Value = Literal["given", "group-optimal", "batch-optimal"]


VALUES: tuple[str, ...] = get_args(Value)


PairForm = Literal["dpo", "ipo", "rebel"]


PAIR_FORMS: tuple[str, ...] = get_args(PairForm)


PenaltyName = Literal["k2-in-loss", "k3-in-loss"]
"""What may stand where a divergence does, though its gradient is not a divergence's."""


def require_reduction(reduce: str | int) -> None:
    """Raise unless it is a reduction.

    Raises:
        ValueError: an unknown name, or a fixed length below 1.
    """
    if isinstance(reduce, int):
        require(reduce > 0, "reduce (a fixed length)", reduce, "> 0")
    else:
        require_known("reduce", reduce, REDUCTIONS)


def check_penalty_name(name: str) -> None:
    """Return if there is a divergence or a penalty of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in get_args(PenaltyName):
        check_divergence_name(name)


def slope_of_penalty(name: str) -> SlopeAtReference:
    """Return what the slope of the named divergence or penalty is where π = ref = μ."""
    if name in get_args(PenaltyName):
        return SlopeAtReference(constant=0.0, is_forward_kl=False)
    return slope_of_divergence(name)

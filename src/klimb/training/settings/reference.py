"""The anchor of the divergence: the rules by which it changes. Read without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from klimb.declarations import CountOrZero, OrWord, OwnName, configurable, require_known
from klimb.own_parts import is_own


@configurable
@dataclass(frozen=True, kw_only=True)
class IterativeReference:
    """The reference is the policy as it was at the last refresh.

    Source: arXiv 2505.17508, section 5 and figure 1.
    """

    kind: Literal["iterative"] = "iterative"
    """Iterative reference."""
    every_steps: Annotated[CountOrZero | None, OrWord("never", None)] = 0
    """Refresh once this many optimiser steps were taken; 0 refreshes at every collection: then ref = mu, at no cost."""
    kl_threshold: Annotated[Annotated[float, Gt(0), Le(1_000)] | None, OrWord("never", None)] = None
    """Refresh once the moving average of KL(pi||ref), in nats per token, exceeds this."""
    kl_decay: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Share of the old value that this average keeps at each optimiser step."""

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 0:
            raise ValueError(f"every_steps must be >= 0, got {self.every_steps}; 0 refreshes at every collection")
        if self.kl_threshold is not None and not (math.isfinite(self.kl_threshold) and self.kl_threshold > 0):
            raise ValueError(f"kl_threshold must be finite and > 0, got {self.kl_threshold}")
        if not 0 <= self.kl_decay < 1:
            raise ValueError(f"kl_decay must be in [0, 1), got {self.kl_decay}")
        if self.every_steps is None and self.kl_threshold is None:
            raise ValueError("an iterative reference needs every_steps or kl_threshold; for neither, use kind fixed")

    @property
    def needs_copy(self) -> bool:
        """True when the weights of the reference can differ from those that sample."""
        return self.every_steps is None or self.every_steps > 1


@configurable
@dataclass(frozen=True, kw_only=True)
class FixedReference:
    """The reference is the policy as it was at the start."""

    kind: Literal["fixed"] = "fixed"
    """Fixed reference."""
    needs_copy: ClassVar[bool] = True


@configurable
@dataclass(frozen=True, kw_only=True)
class EmaReference:
    """The reference follows the policy as a moving average."""

    kind: Literal["ema"] = "ema"
    """Moving average of the weights."""
    decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    """Share of the old reference kept for each optimiser step."""
    needs_copy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")


@configurable
@dataclass(frozen=True, kw_only=True)
class BehaviourReference:
    """The reference is whoever wrote the response: ref = mu."""

    kind: Literal["behaviour"] = "behaviour"
    """Behaviour policy."""
    needs_copy: ClassVar[bool] = False


@configurable
@dataclass(frozen=True, kw_only=True)
class NoReference:
    """No reference: needs beta = 0."""

    kind: Literal["none"] = "none"
    """No reference."""
    needs_copy: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class ReferenceStanding:
    """What a rule of the user's own sees between two batches.

    Attributes:
        num_optimizer_steps: taken so far.
        steps_since_refresh: of them, those since the reference last was the policy.
        num_refreshes: so far.
        kl_average: moving average of KL(pi||ref) since the last refresh, in nats a token; None before the first value.
    """

    num_optimizer_steps: int
    steps_since_refresh: int
    num_refreshes: int
    kl_average: float | None


@configurable
@dataclass(frozen=True, kw_only=True)
class OwnReference:
    """The reference is the policy as it was when a rule of your own last said so."""

    kind: OwnName
    """Where it is: a function of a `klimb.training.ReferenceStanding` that returns True for a refresh."""
    needs_copy: ClassVar[bool] = True


ReferenceSettings = IterativeReference | FixedReference | EmaReference | BehaviourReference | NoReference | OwnReference


REFERENCES: Mapping[str, type[ReferenceSettings]] = {
    rule.kind: rule for rule in get_args(ReferenceSettings) if rule is not OwnReference
}
"""Every rule of the reference by its kind."""


def reference_named(kind: str = "iterative", **settings: Any) -> ReferenceSettings:
    """Return the rule of the reference of this kind, with these settings.

    Raises:
        ValueError: no such kind.
    """
    if is_own(kind):
        return OwnReference(kind=kind, **settings)
    require_known("reference", kind, list(REFERENCES))
    return REFERENCES[kind](**settings)

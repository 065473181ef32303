"""What a recipe is: a named choice for every part of an algorithm."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from klimb.losses.clips import Clip, NoClip, Taper
from klimb.losses.names import Anchor, Estimator, Level, LossKind, Ratio, Reduce, Value

if TYPE_CHECKING:
    from klimb.losses.kto import KtoObjective
    from klimb.losses.objective import Objective
    from klimb.losses.regression import SquaredResidual

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "policy-gradient": ("divergence", "beta", "estimator", "level", "clip", "reduce", "ratio"),
    "squared-residual": ("beta", "anchor", "value", "level", "reduce"),
    "kto": ("beta", "desirable_weight", "undesirable_weight", "reduce"),
}


def _loss_class(loss: LossKind) -> "type[Objective] | type[SquaredResidual] | type[KtoObjective]":
    # Imported here because a recipe is read without torch, and a loss needs it.
    from klimb.losses.kto import KtoObjective
    from klimb.losses.objective import Objective
    from klimb.losses.regression import SquaredResidual

    return {"policy-gradient": Objective, "squared-residual": SquaredResidual, "kto": KtoObjective}[loss]


ReferenceKind = Literal["iterative", "fixed", "behaviour", "none"]


Credit = Literal["response", "reward-to-go", "gae"]


Family = Literal["RPG", "with a critic", "without a critic", "for logs and feedback"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named choice for every part of an algorithm.

    Attributes:
        family: under which heading it is listed.
        formula: the loss per unit, in the notation of docs/notation.md.
        advantages: how rewards become advantages. Soft values take β as their temperature.
        reduce: as in `Objective`; `max-new-tokens` is the fixed length that responses may have at most, which only the
            run knows: `objective(reduce=…)` must be told.
        reference: the rule for the reference policy; `behaviour` is ref = μ whoever μ was. A squared residual on μ has
            its anchor in the data, and `none` here.
        group_filter: drop groups whose rewards are all equal, and draw others (dynamic sampling).
        loss: which class makes the objective. `policy-gradient` (`Objective`) uses divergence, estimator, clip and
            ratio; `squared-residual` uses anchor and value; `kto` its two weights. The rest then stands idle.
        advantage_offset: δ in A = R − (V + δ); negative puts the baseline below the mean.
        min_reward: samples whose reward is below it are left out; None keeps all.
        credit: how the reward of a response becomes advantages. `response`: one advantage for all of its tokens, as
            `advantages` says. `reward-to-go`: each token has the discounted sum of the rewards from it on. `gae`: that
            less a learned value of each prefix, generalised advantage estimation. The reward stands at the last token.
        kl_in_reward: coefficient of the reward −(log μ − log ref) that every token gets besides, per nat.
        gae_lambda: λ of `gae`; 1 is the whole return, 0 the one-step difference of values.
        discount: γ from one token to the next.
        whiten: advantages of tokens are centred and scaled over all tokens of the batch.
        departs: where klimb differs from the source, and why; empty if nowhere.
    """

    name: str
    family: Family
    summary: str
    source: str
    formula: str
    beta: float
    level: Level
    advantages: str
    reduce: Reduce | Literal["max-new-tokens"]
    reference: ReferenceKind
    group_filter: bool
    loss: LossKind = "policy-gradient"
    divergence: str = "urkl"
    estimator: Estimator = "reinforce"
    clip: Clip = field(default_factory=NoClip)
    ratio: Ratio = "recorded"
    anchor: Anchor = "mu"
    value: Value = "given"
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    advantage_offset: float = 0.0
    min_reward: float | None = None
    credit: Credit = "response"
    kl_in_reward: float = 0.0
    gae_lambda: float = 1.0
    discount: float = 1.0
    whiten: bool = False
    departs: str = ""

    @property
    def needs_log_mu(self) -> bool:
        """Whether its objective reads log μ: without it, data that was not recorded while drawing is of no use."""
        return self.objective(reduce="token-mean").needs_log_mu

    @property
    def usable_offline(self) -> bool:
        """Made for many passes over one set of data: no weight can exceed 1, because there is none or it is tapered.

        False does not forbid logged data; it means weights π/μ whose variance grows as the policy leaves μ.
        """
        return self.loss != "policy-gradient" or self.ratio == "none" or isinstance(self.clip, Taper)

    def objective(self, **overrides: Any) -> "Objective | SquaredResidual | KtoObjective":
        """Return the objective of this recipe, with any of its settings replaced.

        Raises:
            ValueError: a setting that this objective doesn't have, a value out of range, or no length where the
                recipe divides by the longest that a response may be.
        """
        kind = _loss_class(self.loss)
        known = {entry.name for entry in dataclasses.fields(kind)}
        unknown = sorted(set(overrides) - known)
        if unknown:
            article = "an" if self.loss == "policy-gradient" else f"a {self.loss}"
            raise ValueError(f"{article} objective has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
        settings: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS[self.loss]} | overrides
        if settings["reduce"] == "max-new-tokens":
            raise ValueError(
                f"{self.name} divides by the number of tokens that a response may have, got reduce = 'max-new-tokens'; "
                "pass that number, e.g. objective(reduce=512)"
            )
        return kind(**settings)

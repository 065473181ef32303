"""What a recipe is: a named choice for every part of an algorithm. Read without torch."""

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from klimb.losses.names import MAX_NEW_TOKENS
from klimb.losses.settings import LossSettings
from klimb.training.settings.advantages import AdvantageSettings, CreditSettings
from klimb.training.settings.reference import ReferenceSettings

if TYPE_CHECKING:
    from klimb.losses import KtoObjective, Objective, PairwiseLoss, SquaredResidual


Family = Literal["RPG", "with a critic", "without a critic", "for logs and feedback"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named choice for every part of an algorithm, in the sections of a run file.

    Attributes:
        family: under which heading it is listed.
        formula: the loss per unit, in the notation of docs/notation.md.
        objective: the loss. Its `reduce` may be `max-new-tokens`, the fixed length that responses may have at most,
            which only the run knows.
        advantages: how rewards become advantages. Soft values take β as their temperature.
        credit: which token a reward is credited to.
        reference: the rule for the reference policy; `behaviour` is ref = μ whoever μ was. A squared residual on μ has
            its anchor in the data, and none here.
        departs: where klimb differs from the source, and why; empty if nowhere.
    """

    name: str
    family: Family
    summary: str
    source: str
    formula: str
    objective: LossSettings
    advantages: AdvantageSettings
    credit: CreditSettings = field(default_factory=CreditSettings)
    reference: ReferenceSettings
    departs: str = ""

    @property
    def needs_log_mu(self) -> bool:
        """Whether its objective reads log μ: without it, data that was not recorded while drawing is of no use."""
        return self.objective.needs_log_mu

    @property
    def usable_offline(self) -> bool:
        """Made for many passes over one set of data: no weight can exceed 1, because there is none or it is tapered.

        False does not forbid logged data; it means weights π/μ whose variance grows as the policy leaves μ.
        """
        return self.objective.bounds_weights

    def make_objective(self, **overrides: Any) -> "Objective | SquaredResidual | KtoObjective | PairwiseLoss":
        """Return the loss of this recipe, with any of its settings replaced.

        Raises:
            ValueError: a setting that this loss doesn't have, a value out of range, or no length where the recipe
                divides by the longest that a response may be.
        """
        # Imported here because a recipe is read without torch, and a loss needs it.
        from klimb.losses.build import build_loss

        known = {entry.name for entry in fields(self.objective)} - {"loss"}
        unknown = sorted(set(overrides) - known)
        if unknown:
            raise ValueError(
                f"the loss {self.objective.loss} has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        settings = replace(self.objective, **overrides)
        if settings.reduce == MAX_NEW_TOKENS:
            raise ValueError(
                f"{self.name} divides by the number of tokens that a response may have, got reduce = 'max-new-tokens'; "
                "pass that number, e.g. make_objective(reduce=512)"
            )
        return build_loss(settings)

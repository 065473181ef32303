"""From rewards to advantages: of which token, less which baseline, in which groups. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le

from klimb.declarations import Fraction, OrWord, OwnName, configurable, require, require_known
from klimb.experience.advantages import ADVANTAGES, advantage_named

# The registry says which there are; a type checker sees the type of their names.
if TYPE_CHECKING:
    AdvantageName = str
else:
    AdvantageName = Literal[tuple(ADVANTAGES)] | OwnName


@configurable
@dataclass(frozen=True, kw_only=True)
class AdvantageSettings:
    """From rewards to advantages, and which groups are trained on."""

    kind: AdvantageName = "group-mean"
    """The baseline, and what the difference is divided by. Soft values take objective.beta as their temperature."""
    offset: Annotated[float, Ge(-1_000), Le(1_000)] = 0.0
    """Added to the baseline; below 0 every response looks that much better (AsymRE)."""
    min_reward: Annotated[Annotated[float, Ge(-1_000_000), Le(1_000_000)] | None, OrWord("none", None)] = None
    """Responses with a smaller reward are not trained on (filtered cloning); `none` trains on all. The baseline is
    formed over all responses first, those that are then left out included."""
    group_filter: bool = True
    """Drop groups from which nothing can be learnt and sample others in their place (dynamic sampling). A baseline over
    the batch (`batch-...`) is then formed without them: it is that of the groups which stay."""
    max_refills: Annotated[int, Ge(0), Le(1_000)] = 2
    """Extra rounds of sampling at most, when groups were dropped; what there is then is the batch."""
    shuffle_rewards: bool = False
    """The control experiment: rewards are exchanged at random, so that nothing can be learnt."""

    def __post_init__(self) -> None:
        advantage_named(self.kind)
        require(self.max_refills >= 0, "max_refills", self.max_refills, ">= 0")


CreditKind = Literal["response", "turn", "reward-to-go", "gae"]


IDLE_CREDIT: Mapping[str, tuple[str, ...]] = {
    "response": ("kl_in_reward", "gae_lambda", "discount", "whiten"),
    "turn": ("kl_in_reward", "gae_lambda", "discount", "whiten"),
    "reward-to-go": ("gae_lambda",),
}
"""The settings of credit that do nothing, by its kind."""


@configurable
@dataclass(frozen=True, kw_only=True)
class CreditSettings:
    """Which token a reward is credited to; its defaults come from the recipe."""

    kind: CreditKind = "response"
    """One advantage a response (`[advantages]`), one a turn of a conversation (its return less that of the other
    responses' turns), the rewards from each token on, or those less a learned value."""
    kl_in_reward: Annotated[float, Ge(0), Le(1_000)] = 0.0
    """Every token also gets the reward -kl_in_reward * log(mu/ref); 0 switches it off."""
    gae_lambda: Fraction = 1.0
    """gae: 1 is the whole return, 0 the one-step difference of values."""
    discount: Fraction = 1.0
    """Weight of the next token's reward."""
    whiten: bool = False
    """Centre and scale the advantages over all tokens of the batch."""

    def __post_init__(self) -> None:
        require_known("credit", self.kind, get_args(CreditKind))
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        require(self.kl_in_reward >= 0, "kl_in_reward", self.kl_in_reward, ">= 0")
        self._check_read()

    def _check_read(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in IDLE_CREDIT.get(self.kind, ()) and value != entry.default:
                raise ValueError(
                    f"credit.{entry.name} = {value!r} does nothing with credit.kind = {self.kind!r}; leave it out, or "
                    "set another credit.kind"
                )


@configurable
@dataclass(frozen=True, kw_only=True)
class CriticSettings:
    """The value head of credit.kind = 'gae': on the policy's hidden states, trained beside it."""

    hidden_size: Annotated[int, Ge(1), Le(1_000_000)] = 256
    """Units of its hidden layer."""
    learning_rate: Annotated[float, Gt(0), Le(1)] = 1e-3
    """Step size of its own Adam."""
    num_epochs: Annotated[int, Ge(1), Le(1_000)] = 4
    """Passes over each batch."""
    num_minibatches: Annotated[int, Ge(1), Le(100_000)] = 4
    """Steps per pass."""
    clip: Annotated[float, Gt(0), Le(1_000_000)] = 0.2
    """How far a value may move on one batch before its loss is clipped, in units of the reward."""
    max_grad_norm: Annotated[float, Gt(0), Le(1_000_000)] = 1.0
    """A longer gradient is scaled down to this norm."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_epochs", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"critic {name} must be >= 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"critic {name} must be > 0, got {getattr(self, name)}")

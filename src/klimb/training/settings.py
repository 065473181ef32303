"""All that a run can be told, as plain frozen values. Read without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from klimb.declarations import Count, CountOrZero, Fraction, OrWord, configurable, require_known
from klimb.experience.advantages import NEEDS_GROUPS, advantage_named
from klimb.experience.samples import SamplingSettings
from klimb.training.guard.settings import GuardSettings
from klimb.training.sources.shares import SourceSettings

if TYPE_CHECKING:
    from klimb.losses import Loss

LogMuRule = Literal["sampler", "recomputed", "auto"]


MicroBatchTokens = int | Literal["auto"]
"""Most tokens that go through the model at once. `auto` takes whole groups, in portions as near to `tokens_at_once` of
the device as they come: torn apart, a group needs its prompt twice, and pieces of unlike size leave holes in the blocks
of attention."""


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


CreditKind = Literal["response", "reward-to-go", "gae"]


@configurable
@dataclass(frozen=True, kw_only=True)
class CreditSettings:
    """Which token a reward is credited to; its defaults come from the recipe."""

    kind: CreditKind = "response"
    """One advantage a response (`[advantages]`), the rewards from each token on, or those less a learned value."""
    kl_in_reward: Annotated[float, Ge(0), Le(1_000)] = 0.0
    """Every token also gets the reward -kl_in_reward * log(mu/ref); 0 switches it off."""
    gae_lambda: Fraction = 1.0
    """gae: 1 is the whole return, 0 the one-step difference of values."""
    discount: Fraction = 1.0
    """Weight of the next token's reward."""
    whiten: bool = False
    """Centre and scale the advantages over all tokens of the batch."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(CreditKind):
            raise ValueError(f"unknown credit {self.kind!r}; there are response, reward-to-go and gae")
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.kl_in_reward < 0:
            raise ValueError(f"kl_in_reward must be >= 0, got {self.kl_in_reward}")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How a gradient becomes a step.

    Attributes:
        kind: `adamw` or `schedule-free`.
        learning_rate: constant after the warm-up.
        warmup_steps: step k of the first ones uses learning_rate · k / warmup_steps; 0 and 1 mean none.
        weight_decay: decoupled, multiplied by the learning rate; Schedule-Free applies it at y.
        decay_vectors: whether parameters with one axis (norms, biases) decay too.
    """

    kind: Literal["adamw", "schedule-free"] = "adamw"
    learning_rate: float = 1e-6
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    decay_vectors: bool = True
    warmup_steps: int = 10

    def __post_init__(self) -> None:
        if self.kind not in ("adamw", "schedule-free"):
            raise ValueError(f"unknown optimizer {self.kind!r}; there are adamw and schedule-free")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be finite and > 0, got {self.learning_rate}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.kind == "schedule-free" and self.beta1 == 0:
            raise ValueError("beta1 must be > 0 for schedule-free: x is found from y by dividing by it")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be finite and >= 0, got {self.weight_decay}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be >= 0, got {self.warmup_steps}")


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


ReferenceSettings = IterativeReference | FixedReference | EmaReference | BehaviourReference | NoReference


REFERENCES: Mapping[str, type[ReferenceSettings]] = {rule.kind: rule for rule in get_args(ReferenceSettings)}
"""Every rule of the reference by its kind."""


def reference_named(kind: str = "iterative", **settings: Any) -> ReferenceSettings:
    """Return the rule of the reference of this kind, with these settings.

    Raises:
        ValueError: no such kind.
    """
    require_known("reference", kind, list(REFERENCES))
    return REFERENCES[kind](**settings)


EssScaling = Literal["none", "token", "sequence-mean", "sequence"]


ESS_METRICS: Mapping[str, str] = {"token": "ess_token", "sequence-mean": "ess_normalised", "sequence": "ess_sequence"}
"""`ess_scaling` -> the metric whose root it is."""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a minibatch becomes one step.

    Attributes:
        micro_batch_tokens: prompt and response tokens that go through the model at once, with their padding where the
            policy does not pack rows; `auto` takes whole groups and suits the device. It changes memory and speed; the
            gradient stays the same up to rounding.
        max_grad_norm: a longer gradient is scaled down to this norm.
        ess_scaling: the learning rate is multiplied by √(ESS/n), the share of the minibatch that its weights π/μ leave
            effective, over tokens or over responses (`sequence-mean` by their geometric mean); `none` leaves it alone.

    Source of ess_scaling: VCPO, arXiv 2602.17616. The root is klimb's own choice: it is how the step of Adam-like
    optimizers is usually scaled with the batch size.
    """

    micro_batch_tokens: MicroBatchTokens = "auto"
    max_grad_norm: float = 1.0
    ess_scaling: EssScaling = "none"

    def __post_init__(self) -> None:
        if self.micro_batch_tokens != "auto" and self.micro_batch_tokens < 1:
            raise ValueError(f"micro_batch_tokens must be 'auto' or >= 1, got {self.micro_batch_tokens}")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be > 0, got {self.max_grad_norm}; use inf for no clip")
        if self.ess_scaling != "none" and self.ess_scaling not in ESS_METRICS:
            raise ValueError(f"unknown ess_scaling {self.ess_scaling!r}; there are none, {', '.join(ESS_METRICS)}")


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """What is done with one batch.

    Attributes:
        num_epochs: passes over the batch.
        num_minibatches: optimiser steps a pass; fewer when there are fewer groups.
        step: of each of them.
        max_skipped_steps: this many steps in a row that are not finite end the run; 0 and 1 mean the first one.
    """

    num_epochs: int = 1
    num_minibatches: int = 1
    step: StepSettings = field(default_factory=StepSettings)
    max_skipped_steps: int = 5

    def __post_init__(self) -> None:
        for name, least in (("num_epochs", 1), ("num_minibatches", 1), ("max_skipped_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How a batch comes about.

    Attributes:
        num_prompts: groups a batch.
        num_samples: responses a group.
        advantages: a name in `klimb.experience.ADVANTAGES`, or `python:module.function`.
        advantage_offset: added to the baseline; below 0 every response looks that much better (AsymRE).
        advantage_temperature: of the soft values, in units of the reward; the loss's β.
        min_reward: responses below it are not trained on (filtered cloning); None trains on all.
        group_filter: drop groups from which nothing can be learnt (all rewards equal, all right or all wrong) and
            draw other prompts in their place.
        max_refills: rounds of drawing after the first one at most; what there is then is the batch.
        shuffle_rewards: the control experiment: scores are exchanged at random between all responses drawn together,
            before anything else sees them. Nothing can be learnt from such a batch but noise.
    """

    num_prompts: int = 16
    num_samples: int = 8
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    advantages: str = "group-mean"
    advantage_offset: float = 0.0
    advantage_temperature: float = 1.0
    min_reward: float | None = None
    group_filter: bool = False
    max_refills: int = 2
    shuffle_rewards: bool = False

    def __post_init__(self) -> None:
        if self.num_prompts < 1 or self.num_samples < 1 or self.max_refills < 0:
            raise ValueError(
                f"num_prompts and num_samples must be >= 1 and max_refills >= 0, got {self.num_prompts}, "
                f"{self.num_samples} and {self.max_refills}"
            )
        advantage_named(self.advantages)
        if self.num_samples == 1 and self.advantages in NEEDS_GROUPS:
            raise ValueError(
                f"advantages {self.advantages!r} compare the responses to one prompt, and num_samples is 1; "
                "draw at least 2, or use batch-z-score"
            )
        if self.sampling.temperature == 0:
            raise ValueError("temperature is 0: a policy that always answers the same cannot learn from itself; use 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When the whole state of the run is saved."""

    every_steps: Count = 20
    """Collections between two checkpoints."""
    keep: Annotated[int, Ge(1), Le(1_000)] = 2
    """The newest this many are kept."""
    at_end: bool = True
    """Also save after the last step, so that the run can be continued. A signal saves in any case."""

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.keep < 1:
            raise ValueError(f"every_steps and keep must be >= 1, got {self.every_steps} and {self.keep}")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How the held-out problems are answered while training.

    Attributes:
        every_steps: loop steps between two evaluations; 0 means none.
        every_tokens: also evaluate each time that training has drawn so many more response tokens; 0 means not so.
        every_seconds: also evaluate each time that the steps have taken so much longer; 0 means not so.
        num_samples: responses a problem.
        seed: every evaluation draws from this one, so that two of them differ by the policy alone.
    """

    every_steps: int = 0
    every_tokens: int = 0
    every_seconds: float = 0.0
    num_samples: int = 8
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("every_steps", 0), ("every_tokens", 0), ("every_seconds", 0), ("num_samples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")

    @property
    def is_on(self) -> bool:
        """Whether there are evaluations while training."""
        return bool(self.every_steps or self.every_tokens or self.every_seconds)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """One run.

    Attributes:
        num_steps: batches collected and trained on.
        credit: which token a reward is credited to; other than `response`, it takes the advantages for the rewards.
        critic: the value head of credit `gae`.
        sources: where the groups of a batch come from.
        log_mu: `sampler` takes the log-probabilities that the sampler recorded; `recomputed` replaces them by those
            of the trainer's forward pass with the same weights, which removes the mismatch of the two and costs a pass;
            `auto` does so in steps whose measured mismatch is larger than `max_mismatch`: numbers so far off are rather
            wrong than those of another kernel. The metric `log_mu_recomputed` says which.
        num_mismatch_rows: so many responses a step are scored by the trainer to measure that mismatch, unless the first
            pass of the update shows it at no cost (plain sampling, AdamW, no lag, `sampler`); 0 leaves it out of the
            metrics.
        max_mismatch: of `auto`: mean |log π − log μ| in nats a token.
        max_seconds: the run ends after the step in which this much time has passed, as if it were the last.
        max_generated_tokens: the run ends after the step in which so many response tokens were drawn in all, those of
            groups that were not trained on included.
        max_training_seconds: the run ends after the step in which the steps alone have taken this much time.
        save_rollouts: keep all that was drawn, as Parquet.
        guard: watches what the model could do before; None watches nothing.
        own_parts: `python:module.name` of each part of the user's own -> hash of its source, so that a run is not
            resumed with another.
    """

    num_steps: int
    seed: int = 0
    collect: RolloutSettings = field(default_factory=RolloutSettings)
    credit: CreditSettings = field(default_factory=CreditSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)
    sources: SourceSettings = field(default_factory=SourceSettings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    reference: ReferenceSettings = field(default_factory=IterativeReference)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    log_mu: LogMuRule = "sampler"
    num_mismatch_rows: int = 8
    max_mismatch: float = 0.05
    max_seconds: float = float("inf")
    max_generated_tokens: float = float("inf")
    max_training_seconds: float = float("inf")
    save_rollouts: bool = True
    guard: GuardSettings | None = None
    own_parts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_steps < 0 or self.num_mismatch_rows < 0:
            raise ValueError(
                f"num_steps and num_mismatch_rows must be >= 0, got {self.num_steps} and {self.num_mismatch_rows}"
            )
        if self.credit.kind != "response" and self.collect.advantages != "no-baseline":
            raise ValueError(
                f"credit {self.credit.kind} makes advantages of rewards as they are, got advantages = "
                f"{self.collect.advantages!r}; use no-baseline"
            )
        self._check_log_mu()
        if not self.save_rollouts and (self.sources.share("replay") or self.sources.lag):
            raise ValueError(
                "save_rollouts is off, and a run that replays or delays its rollouts reads them back from there when "
                "it is resumed; turn save_rollouts on"
            )

    def _check_log_mu(self) -> None:
        rules = get_args(LogMuRule)
        if self.log_mu not in rules:
            raise ValueError(f"unknown log_mu {self.log_mu!r}; there are {', '.join(rules)}")
        if self.log_mu != "sampler" and not self.collect.sampling.is_plain:
            raise ValueError(
                f"log_mu = {self.log_mu} scores at temperature 1 without truncation, and the sampling is "
                f"{self.collect.sampling}; what it computed would not be μ. Use log_mu = sampler, or plain sampling"
            )
        if not self.max_mismatch > 0:
            raise ValueError(f"max_mismatch must be > 0, got {self.max_mismatch}")
        if self.log_mu == "auto" and not self.num_mismatch_rows:
            raise ValueError("log_mu = auto needs a measured gap, and num_mismatch_rows is 0; set it to 8, say")


def check_settings_fit(
    settings: LoopSettings, objective: "Loss", *, has_held_out: bool, has_base_metrics: bool = False
) -> None:
    """Return if a run of these settings can do what they ask for.

    Raises:
        ValueError: the objective needs a reference and there is none, or an evaluation has no problems.
    """
    if settings.guard is not None and not has_base_metrics:
        raise ValueError("settings.guard is given, and nothing that measures; give base_metrics, or no guard")
    if settings.evaluation.is_on and not has_held_out:
        raise ValueError(
            "evaluations while training are asked for, and there are no held-out problems; give some, or set "
            "evaluation.every_steps, every_tokens and every_seconds to 0"
        )
    if settings.reference.kind == "none" and settings.credit.kl_in_reward > 0:
        raise ValueError(
            f"kl_in_reward is {settings.credit.kl_in_reward} and the reference is none: the KL needs one; set "
            "kl_in_reward = 0, or choose iterative, fixed or ema"
        )
    if settings.reference.kind == "none" and objective.needs_log_ref:
        raise ValueError(
            f"beta is {objective.beta} and the reference is none: a divergence needs one; set beta = 0, or choose "
            "iterative, fixed or ema"
        )

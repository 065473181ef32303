"""All that a run can be told, in the sections of a run file. Read without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar, get_args

from annotated_types import Ge, Gt, Le

from klimb.declarations import (
    Count,
    CountOrZero,
    OrWord,
    Seconds,
    Seed,
    ShortText,
    configurable,
    require,
    require_known,
)
from klimb.experience.advantages import NEEDS_BATCH, NEEDS_GROUPS
from klimb.experience.samples import SamplingSettings, Source
from klimb.policies.settings import require_temperature
from klimb.tasks.environments.settings import EnvironmentSettings
from klimb.tasks.rewards import RewardSettings
from klimb.training.guard.settings import GuardSettings
from klimb.training.settings.advantages import AdvantageSettings, CreditSettings, CriticSettings
from klimb.training.settings.feedback import FeedbackSettings
from klimb.training.settings.optimizer import OptimizerSettings
from klimb.training.settings.reference import IterativeReference, ReferenceSettings
from klimb.training.settings.sources import ReplaySettings, SourceSettings
from klimb.training.settings.watching import NO_METRIC, EarlyStoppingSettings, Mode, check_metric

OTHERS: tuple[Source, ...] = ("log", "feedback")
"""Sources whose samples other policies drew."""


LogMuRule = Literal["sampler", "recomputed", "auto"]


Amount = TypeVar("Amount")


Limit = Annotated[Amount | float, OrWord("none", math.inf)]
"""A number, or inf for no limit, for which a file says `none`."""


MicroBatchTokens = Count | Literal["auto"]
"""Most tokens that go through the model at once. `auto` takes whole groups, in portions as near to `tokens_at_once` of
the device as they come: torn apart, a group needs its prompt twice, and pieces of unlike size leave holes in the blocks
of attention."""


@configurable
@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and in which portions it trains."""

    num_steps: Count = 100
    """Collections: each samples, scores and trains on one batch."""
    num_epochs: Annotated[int, Ge(1), Le(1_000)] = 1
    """Passes over each batch."""
    num_minibatches: Annotated[int, Ge(1), Le(100_000)] = 1
    """Optimiser steps per pass; fewer when there are fewer groups."""
    micro_batch_tokens: MicroBatchTokens = "auto"
    """Tokens (prompt and answer) that go through the model at once, in gradient accumulation: the gradients of the
    portions add up to that of the minibatch. It changes memory and speed, not the result. `auto` takes whole groups, in
    portions near 1,024 on a CPU (more with many threads) and 8,192 on a GPU; one that runs out of memory is halved."""
    max_skipped_steps: CountOrZero = 5
    """The run stops after this many steps in a row with a non-finite loss or gradient."""
    max_seconds: Limit[Seconds] = math.inf
    """Stop training early, as if the last step were done, so that the whole run with its evaluations fits into this;
    the time of earlier processes counts, when a run is resumed."""
    max_generated_tokens: Limit[Annotated[int, Ge(1), Le(10**15)]] = math.inf
    """Stop after the step in which this many answer tokens were drawn in all, dropped groups included."""
    max_training_seconds: Limit[Seconds] = math.inf
    """Stop after the step in which the steps alone, without evaluations, have taken this long."""
    log_mu: LogMuRule = "sampler"
    """`recomputed` scores each batch again with the trainer, which removes the gap to the sampler and costs a pass;
    `auto` does so where the measured gap is larger than `max_mismatch`."""
    num_mismatch_rows: Annotated[int, Ge(0), Le(100_000)] = 8
    """Answers per step that the trainer scores to measure that gap, where the update does not show it at no cost; 0
    leaves it out."""
    max_mismatch: Annotated[float, Gt(0), Le(1_000)] = 0.05
    """Mean difference in nats a token above which `auto` does not take the sampler's log-probabilities."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "num_minibatches"):
            require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        for name in ("num_steps", "max_skipped_steps", "num_mismatch_rows"):
            require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        for name in ("max_seconds", "max_generated_tokens", "max_training_seconds"):
            require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0, or inf for no limit")
        if self.micro_batch_tokens != "auto" and self.micro_batch_tokens < 1:
            raise ValueError(f"micro_batch_tokens must be 'auto' or >= 1, got {self.micro_batch_tokens}")
        require_known("log_mu", self.log_mu, get_args(LogMuRule))
        require(self.max_mismatch > 0, "max_mismatch", self.max_mismatch, "> 0")
        if self.log_mu == "auto" and not self.num_mismatch_rows:
            raise ValueError("log_mu = auto needs a measured gap, and num_mismatch_rows is 0; set it to 8, say")

    @property
    def num_optimizer_steps(self) -> int:
        """Of the whole run, if every batch has groups enough for its minibatches."""
        return self.num_steps * self.num_epochs * self.num_minibatches


@configurable
@dataclass(frozen=True, kw_only=True)
class RolloutSettings(SamplingSettings):
    """How much is sampled per collection, and the behaviour policy it is drawn from."""

    temperature: Annotated[float, Gt(0), Le(100)] = 1.0
    """Softmax temperature that answers are drawn at, above 0; the policy has the same one unless model.temperature says
    another."""
    num_prompts: Annotated[int, Ge(1), Le(100_000)] = 16
    """Prompts per collection."""
    num_samples: Annotated[int, Ge(1), Le(10_000)] = 8
    """Answers per prompt: the group that shares a baseline."""
    lag: Annotated[int, Ge(0), Le(100_000)] = 0
    """Collections between drawing a batch and training on it, as with asynchronous actors; 0 trains at once."""
    record_support: bool = False
    """Where top_p, top_k or min_p cut tokens off, record with each token which ones could be drawn, and let ratios be
    those of the policy renormalised on them (docs/exactness.md). Costs memory: one number for each token kept."""

    def __post_init__(self) -> None:
        SamplingSettings.__post_init__(self)
        if self.num_prompts < 1 or self.num_samples < 1:
            raise ValueError(f"num_prompts and num_samples must be >= 1, got {self.num_prompts} and {self.num_samples}")
        require(self.lag >= 0, "lag", self.lag, ">= 0 collections")
        if self.temperature == 0:
            raise ValueError("temperature is 0: a policy that always answers the same cannot learn from itself; use 1")

    @property
    def records_support(self) -> bool:
        """True where something is cut off and it is recorded what."""
        return self.record_support and self.has_support

    @property
    def changes_of_policy(self) -> tuple[str, ...]:
        """Names of the settings by which another policy draws: what was recorded of a cut undoes it."""
        return tuple(name for name in self.changes if not (self.records_support and name in self.cuts))


def check_minibatches(num_minibatches: int, num_groups: int, told_by: str) -> None:
    """Return if every optimiser step of a pass gets a group.

    Raises:
        ValueError: there are fewer groups in a step than it is divided into; `told_by` says what decides their number.
    """
    if num_minibatches > num_groups:
        raise ValueError(
            f"training.num_minibatches = {num_minibatches} divides each batch into more optimiser steps than it has "
            f"groups: {num_groups}, by {told_by}. Groups are not torn apart; set training.num_minibatches to at most "
            f"{num_groups}, or {told_by} higher"
        )


@configurable
@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When the whole state of the run is saved."""

    every_steps: Count = 20
    """Collections between two checkpoints."""
    keep: Annotated[int, Ge(1), Le(1_000)] = 2
    """The newest this many are kept."""
    keep_at_end: Annotated[int, Ge(1), Le(1_000)] = 1
    """A run that has ended keeps the newest this many, beside the best and those that its guard may go back to."""
    at_end: bool = True
    """Also save after the last step, so that the run can be continued. A signal or an error saves in any case."""
    rescue: bool = True
    """Copy what an update is about to change into main memory (weights and optimizer state of what is trained), so that
    an error in the middle of it loses nothing. Without the copy, and where there is no memory for it, such an error
    goes back to the newest checkpoint."""
    best_metric: ShortText = NO_METRIC
    """The checkpoint after the best observation of this metric is kept beside the newest, the earlier of two equal
    ones; `none` keeps none. A metric of evaluations is of the very policy that is saved, one of rollouts of the policy
    before that step's update."""
    best_mode: Mode = "max"
    """Whether more of it is better, or less."""
    model: Literal["last", "best"] = "last"
    """Which policy the run ends with, evaluates after the last step and writes as its model. A resume goes on from the
    last one in any case."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep", "keep_at_end"):
            require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        require_known("best_mode", self.best_mode, get_args(Mode))
        require_known("checkpoints.model", self.model, ("last", "best"))
        if self.best_metric != NO_METRIC:
            check_metric("checkpoints.best_metric", self.best_metric)
        elif (self.best_mode, self.model) != ("max", "last"):
            said = "best_mode = 'min'" if self.model == "last" else "model = 'best'"
            raise ValueError(
                f"checkpoints.{said} and no checkpoints.best_metric says what is best; set it, to 'evaluation_mean' say"
            )

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoint is kept."""
        return self.best_metric != NO_METRIC


@configurable
@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How the held-out problems are answered."""

    every_steps: CountOrZero = 0
    """Collections between two evaluations during training; 0 means none."""
    every_tokens: Annotated[int, Ge(0), Le(10**15)] = 0
    """Also evaluate each time that this many more answer tokens were drawn; 0 means not so."""
    every_seconds: Annotated[float, Ge(0), Le(10_000_000)] = 0.0
    """Also evaluate each time that the steps have taken this much longer; 0 means not so."""
    num_samples: Annotated[int, Ge(1), Le(10_000)] = 8
    """Answers per problem, drawn from the policy itself: at its temperature, nothing cut off. They end as sampling.stop
    and sampling.max_new_tokens say."""
    seed: Seed = 0
    """Of the answers; two evaluations differ by the policy alone."""

    def __post_init__(self) -> None:
        for name, least in (("every_steps", 0), ("every_tokens", 0), ("every_seconds", 0), ("num_samples", 1)):
            require(getattr(self, name) >= least, name, getattr(self, name), f">= {least}")

    @property
    def is_on(self) -> bool:
        """Whether there are evaluations while training."""
        return bool(self.every_steps or self.every_tokens or self.every_seconds)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """One run, in the sections of a run file; warm-up and schedule of `auto` become the number of this run's steps.

    Attributes:
        seed: of all random numbers; each purpose draws from its own stream.
        temperature: of the policy, or `auto`: that of the sampling, and where nothing is sampled the one recorded with
            the samples (`klimb.training.find_temperature`).
        replay: which earlier rollouts may be used again.
        environment: what the policy talks to in conversations; None where each response is one turn.
        rewards: the several rewards that a score is the sum of, by their names, where it is one of several.
        feedback: what becomes of people's comments; what else they said is in the samples.
        save_rollouts: keep all that was drawn, as Parquet.
        guard: watches what the model could do before; None watches nothing.
        early_stopping: ends the run once a metric has stopped getting better; None does not.
        own_parts: `python:module.name` of each part of the user's own -> hash of its source, so that a run is not
            resumed with another.

    Raises:
        ValueError: two sections do not fit together.
    """

    seed: int = 0
    temperature: float | Literal["auto"] = "auto"
    sampling: RolloutSettings = field(default_factory=RolloutSettings)
    advantages: AdvantageSettings = field(default_factory=AdvantageSettings)
    credit: CreditSettings = field(default_factory=CreditSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)
    sources: SourceSettings = field(default_factory=SourceSettings)
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    reference: ReferenceSettings = field(default_factory=IterativeReference)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    environment: EnvironmentSettings | None = None
    rewards: Mapping[str, RewardSettings] = field(default_factory=dict)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    save_rollouts: bool = True
    guard: GuardSettings | None = None
    early_stopping: EarlyStoppingSettings | None = None
    own_parts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimizer", self.optimizer.with_steps(self.training.num_optimizer_steps))
        self._check_credit()
        self._check_sources()
        self._check_scales()
        self._check_watched_metrics()
        check_minibatches(self.training.num_minibatches, self.sampling.num_prompts, "sampling.num_prompts")
        if self.sampling.num_samples == 1 and self.advantages.kind in NEEDS_GROUPS:
            raise ValueError(
                f"advantages.kind = {self.advantages.kind!r} compares the answers to one prompt, but "
                "sampling.num_samples is 1; use at least 2, or advantages.kind = 'batch-z-score'"
            )
        require_temperature(self.temperature)
        if self.training.log_mu != "sampler" and not self.draws_from_policy:
            raise ValueError(
                f"training.log_mu = {self.training.log_mu!r} scores under the policy itself, and what is drawn is not "
                f"drawn from it ({self.why_drawn_otherwise}); what it computed would not be μ. Use training.log_mu = "
                "'sampler', or sample from the policy; for top_p, top_k and min_p sampling.record_support = true does"
            )

    def _check_scales(self) -> None:
        """Return if scaled rewards are read as what they are: numbers around 0, of no unit."""
        moved = [name for name, settings in self.rewards.items() if settings.scale != "none"]
        if moved and self.advantages.kind in ("binary-feedback", "ones", "zero"):
            raise ValueError(
                f"rewards.{moved[0]}.scale = {self.rewards[moved[0]].scale!r} does nothing that advantages.kind = "
                f"{self.advantages.kind!r} could read; leave it out, or take another advantages.kind"
            )
        grouped = [name for name in moved if self.rewards[name].scale == "group"]
        if grouped and self.sampling.num_samples == 1 and self.sources.share("rollout") > 0:
            raise ValueError(
                f"rewards.{grouped[0]}.scale = 'group' compares the answers to one prompt, but sampling.num_samples is "
                "1; use at least 2, or scale = 'batch'"
            )

    def _check_watched_metrics(self) -> None:
        """Return if a metric that is watched can be logged in such a run."""
        watched = {"checkpoints.best_metric": self.checkpoints.best_metric}
        if self.early_stopping is not None:
            watched["early_stopping.metric"] = self.early_stopping.metric
        for key, name in watched.items():
            if name.startswith("evaluation_") and not self.evaluation.is_on:
                raise ValueError(
                    f"{key} = {name!r}, and there are no evaluations while training; set evaluation.every_steps"
                )
            if name.startswith("guard/") and self.guard is None:
                raise ValueError(f"{key} = {name!r}, and the run has no section [guard], which measures it")

    @property
    def is_fresh(self) -> bool:
        """True if all that is trained on was drawn at the same step."""
        return self.sources.share("rollout") == 1 and self.sampling.lag == 0

    @property
    def why_drawn_otherwise(self) -> str:
        """What makes the sampling draw from another distribution than the policy, in settings; empty if nothing does.

        A policy whose temperature is `auto` has that of the sampling.
        """
        sampling, reasons = self.sampling, []
        if self.temperature not in ("auto", sampling.temperature):
            reasons.append(f"sampling.temperature = {sampling.temperature:g}, the policy's is {self.temperature:g}")
        reasons += [f"sampling.{name} = {getattr(sampling, name):g}" for name in sampling.changes_of_policy]
        return ", ".join(reasons)

    @property
    def draws_from_policy(self) -> bool:
        """True if what is sampled is drawn from the policy itself: at its temperature, nothing cut off.

        With sampling.record_support what was cut off is known, and the policy is meant on what was left.
        """
        return not self.why_drawn_otherwise

    @property
    def why_mu_is_another(self) -> str:
        """Why some samples come from a distribution that this policy never was, in settings; empty if none do."""
        drawn = [self.why_drawn_otherwise] if self.sources.share("rollout") > 0 else []
        logged = [f"sources.{name} = {share:g}" for name in OTHERS if (share := self.sources.share(name)) > 0]
        return ", ".join(reason for reason in [*drawn, *logged] if reason)

    def _check_credit(self) -> None:
        credit = self.credit
        if credit.kind in ("response", "turn"):
            return
        if self.advantages.kind != "no-baseline":
            raise ValueError(
                f"advantages.kind = {self.advantages.kind!r} gives one advantage a response, and credit.kind = "
                f"{credit.kind!r} one a token; set advantages.kind = 'no-baseline', or credit.kind = 'response'"
            )
        if credit.kl_in_reward > 0 and self.reference.kind == "none":
            raise ValueError(
                f"credit.kl_in_reward is {credit.kl_in_reward:g} but reference.kind is 'none': the KL needs a "
                "reference; set credit.kl_in_reward = 0 or another reference.kind"
            )

    def _check_sources(self) -> None:
        if self.sampling.lag and self.sources.share("rollout") < 1:
            raise ValueError("sampling.lag delays every batch as a whole; use it with sources.rollout = 1")
        if not self.save_rollouts and (self.sources.replay > 0 or self.sampling.lag):
            raise ValueError(
                "run.save_rollouts is off, and a run that replays or delays rollouts reads them back when it is "
                "resumed; turn it on"
            )
        self._check_counts()

    def _check_counts(self) -> None:
        """Return if every source with a share gives at least one group, and a baseline something to compare."""
        total, kind = self.sampling.num_prompts, self.advantages.kind
        for source, number in self.sources.num_groups(total).items():
            share = self.sources.share(source)
            if share and not number:
                raise ValueError(
                    f"sources.{source} = {share:g} of sampling.num_prompts = {total} groups comes to none; raise "
                    "sampling.num_prompts or the share, or set the share to 0"
                )
            is_drawn = source in ("rollout", "replay")
            if is_drawn and kind in NEEDS_BATCH and number * self.sampling.num_samples == 1:
                raise ValueError(
                    f"advantages.kind = {kind!r} compares the answers of a batch, and sources.{source} = {share:g} of "
                    f"sampling.num_prompts = {total} groups of sampling.num_samples = 1 is one answer; use at least 2 "
                    "(baselines never cross a source), or advantages.kind = 'no-baseline'"
                )

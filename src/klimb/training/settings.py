"""All that a run can be told, as plain frozen values."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from klimb.experience import SamplingSettings
from klimb.losses import Loss
from klimb.training.credit import CreditSettings
from klimb.training.guard.limits import GuardSettings
from klimb.training.optimizers import OptimizerSettings
from klimb.training.reference_rules import ReferenceSettings
from klimb.training.rollouts import RolloutSettings
from klimb.training.sources.shares import SourceSettings
from klimb.training.update import UpdateSettings

LogMuRule = Literal["sampler", "recomputed", "auto"]


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When the whole state is saved.

    Attributes:
        every_steps: loop steps between two checkpoints.
        keep: how many of the newest are kept.
        at_end: also save after the last step. A signal saves in any case.
    """

    every_steps: int = 20
    keep: int = 2
    at_end: bool = True

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
    """

    num_steps: int
    seed: int = 0
    collect: RolloutSettings = field(default_factory=RolloutSettings)
    credit: CreditSettings = field(default_factory=CreditSettings)
    sources: SourceSettings = field(default_factory=SourceSettings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
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
    settings: LoopSettings, objective: Loss, *, has_held_out: bool, has_base_metrics: bool = False
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

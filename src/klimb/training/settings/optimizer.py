"""How a gradient becomes a step, in a run and in the cloning before it. Read without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from klimb.declarations import Count, CountOrZero, Fraction, OwnName, configurable, require, require_known
from klimb.own_parts import is_own

EssScaling = Literal["none", "token", "sequence-mean", "sequence"]


ESS_METRICS: Mapping[str, str] = {"token": "ess_token", "sequence-mean": "ess_normalised", "sequence": "ess_sequence"}
"""`ess_scaling` -> the metric whose root it is."""


WarmupSteps = CountOrZero | Literal["auto"]


ScheduleKind = Literal["constant", "linear", "cosine"]


ScheduleSteps = Count | Literal["auto"]


@configurable
@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How a gradient becomes a step.

    Source of ess_scaling: VCPO, arXiv 2602.17616. The root is klimb's own choice: it is how the step of Adam-like
    optimizers is usually scaled with the batch size.
    """

    kind: Literal["adamw", "schedule-free"] | OwnName = "adamw"
    """AdamW, Schedule-Free AdamW, or a function of your own: of parameter groups and these settings, returning a
    `torch.optim.Optimizer`. The learning rate of each step, warm-up included, is set for it."""
    learning_rate: Annotated[float, Gt(0), Le(1)] = 1e-6
    """Step size after the warm-up."""
    warmup_steps: WarmupSteps = "auto"
    """The step size grows linearly over this many optimiser steps. `auto` is a tenth of the run, at most 10; the run
    keeps that number, also when it is resumed for longer."""
    schedule: ScheduleKind = "constant"
    """What the step size does after the warm-up: stay, fall linearly, or fall as half a cosine (learning-rate decay).
    Schedule-Free has `constant` alone."""
    schedule_steps: ScheduleSteps = "auto"
    """The optimiser step, warm-up included, from which on the step size is at its floor. `auto` is the last one of the
    run; the run keeps that number, also when it is resumed for longer."""
    min_learning_rate_fraction: Fraction = 0.0
    """Floor of the schedule, as a share of the learning rate."""
    weight_decay: Annotated[float, Ge(0), Le(10)] = 0.1
    """Decoupled weight decay, multiplied by the learning rate; Schedule-Free applies it at y."""
    decay_vectors: bool = True
    """Whether norms and biases decay too."""
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Decay of the gradient average."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    """Decay of the squared-gradient average."""
    epsilon: Annotated[float, Gt(0), Le(1)] = 1e-8
    """Added to the denominator."""
    max_grad_norm: Annotated[float, Gt(0), Le(1_000_000)] = 1.0
    """A longer gradient is scaled down to this norm."""
    ess_scaling: EssScaling = "none"
    """Multiply the learning rate by the root of the share of each minibatch that its weights leave effective: of its
    tokens, or of its responses (`sequence-mean`: by their geometric mean)."""

    def __post_init__(self) -> None:
        if not is_own(self.kind):
            require_known("optimizer", self.kind, ("adamw", "schedule-free"))
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be finite and > 0, got {self.learning_rate}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.kind == "schedule-free" and self.beta1 == 0:
            raise ValueError("beta1 must be > 0 for schedule-free: x is found from y by dividing by it")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be finite and >= 0, got {self.weight_decay}")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be > 0, got {self.epsilon}")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be > 0, got {self.max_grad_norm}; use inf for no clip")
        if self.ess_scaling != "none" and self.ess_scaling not in ESS_METRICS:
            raise ValueError(f"unknown ess_scaling {self.ess_scaling!r}; there are none, {', '.join(ESS_METRICS)}")
        _check_warmup(self.warmup_steps)
        self._check_schedule()

    def _check_schedule(self) -> None:
        """Return if the schedule is one, and what is said of it acts."""
        require_known("schedule", self.schedule, get_args(ScheduleKind))
        floor, steps = self.min_learning_rate_fraction, self.schedule_steps
        require(0 <= floor <= 1, "min_learning_rate_fraction", floor, "in [0, 1]")
        if steps != "auto" and (isinstance(steps, str) or steps < 1):
            raise ValueError(f"schedule_steps must be 'auto' or >= 1, got {steps!r}")
        if self.schedule == "constant":
            for name, value, idle in (("schedule_steps", steps, "auto"), ("min_learning_rate_fraction", floor, 0)):
                if value != idle:
                    raise ValueError(
                        f"{name} = {value} does nothing with schedule = 'constant'; set schedule = 'linear' or "
                        "'cosine', or leave it out"
                    )
            return
        if self.kind == "schedule-free":
            raise ValueError(
                f"schedule = {self.schedule!r} with kind = 'schedule-free', which averages its points in the place of "
                "a schedule; set schedule = 'constant' or kind = 'adamw'"
            )
        if isinstance(steps, int) and isinstance(self.warmup_steps, int) and steps < self.warmup_steps:
            raise ValueError(
                f"schedule_steps = {steps} ends before the warm-up of warmup_steps = {self.warmup_steps} does; set "
                "schedule_steps higher, or warmup_steps lower"
            )

    def with_steps(self, num_optimizer_steps: int) -> "OptimizerSettings":
        """Return the same with numbers for `auto`, in a run of so many optimiser steps."""
        given: dict[str, Any] = {}
        if self.warmup_steps == "auto":
            given["warmup_steps"] = automatic_warmup(num_optimizer_steps)
        if self.schedule_steps == "auto" and self.schedule != "constant":
            given["schedule_steps"] = max(1, num_optimizer_steps)
        return replace(self, **given) if given else self

    def rate_fraction(self, step: int) -> float:
        """Return the share of the learning rate at an optimiser step, from 0, by warm-up and schedule.

        The warm-up is (step + 1) / warmup_steps: the first step has a share of the rate already. After it the decay is
        that of transformers' schedules, with p = (step − warmup_steps) / (schedule_steps − warmup_steps): 1 − p, or
        (1 + cos πp) / 2, of what lies above the floor.

        Raises:
            ValueError: a number of steps is `auto`, and these settings do not know how long a run is.
        """
        if self.warmup_steps == "auto" or (self.schedule_steps == "auto" and self.schedule != "constant"):
            name = "warmup_steps" if self.warmup_steps == "auto" else "schedule_steps"
            raise ValueError(f"{name} is 'auto', and an optimizer does not know how long a run is; give a number")
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule_steps == "auto":
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.schedule_steps - self.warmup_steps))
        left = 1 - progress if self.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return self.min_learning_rate_fraction + (1 - self.min_learning_rate_fraction) * left


def automatic_warmup(num_optimizer_steps: int) -> int:
    """Return a tenth of the steps, rounded up, and at most 10: short runs still train at their learning rate.

    Other trainers take a share of the run too (`warmup_ratio` in transformers, rounded up; 0.03 in OpenRLHF), or none
    (0 in verl). Ten steps are enough for AdamW's averages to fill at beta1 = 0.9.
    """
    return min(10, math.ceil(num_optimizer_steps / 10))


def _check_warmup(warmup_steps: int | str) -> None:
    if warmup_steps != "auto" and (isinstance(warmup_steps, str) or warmup_steps < 0):
        raise ValueError(f"warmup_steps must be 'auto' or >= 0, got {warmup_steps!r}")


@configurable
@dataclass(frozen=True, kw_only=True)
class CloningSettings:
    """A warm-up by behaviour cloning before the first collection."""

    num_epochs: Annotated[int, Ge(1), Le(1_000)] = 1
    """Passes over the pairs, each in a new order."""
    batch_size: Annotated[int, Ge(1), Le(100_000)] = 32
    """Examples per optimiser step."""
    learning_rate: Annotated[float, Gt(0), Le(1)] = 1e-5
    """Step size after the warm-up, constant; all else of the optimizer is as in its own section."""
    warmup_steps: WarmupSteps = "auto"
    """As optimizer.warmup_steps, and that number if one is given there; `auto` is a tenth of the cloning's steps."""

    def __post_init__(self) -> None:
        if self.num_epochs < 1 or self.batch_size < 1:
            raise ValueError(f"num_epochs and batch_size must be >= 1, got {self.num_epochs} and {self.batch_size}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be finite and > 0, got {self.learning_rate}")
        _check_warmup(self.warmup_steps)

    def optimizer(self, settings: OptimizerSettings, *, num_pairs: int) -> OptimizerSettings:
        """Return the optimizer of the run as it clones so many pairs."""
        steps = self.num_epochs * math.ceil(num_pairs / self.batch_size)
        warmup_steps = automatic_warmup(steps) if self.warmup_steps == "auto" else self.warmup_steps
        return replace(
            settings,
            learning_rate=self.learning_rate,
            warmup_steps=warmup_steps,
            schedule="constant",
            schedule_steps="auto",
            min_learning_rate_fraction=0.0,
        )

"""The sections that say how it learns: objective, advantages, reference, optimizer, training.

`ObjectiveSection` has no defaults of its own: they come from the recipe it names (`config/recipe.py`).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, Field

from klimb.declarations import MOST, Count, CountOrZero, OneOf, OwnName, PathText, Seconds, ShortText, configurable
from klimb.divergences.names import SlopeAtReference
from klimb.experience.advantages import ADVANTAGES
from klimb.losses.clips import CLIPS, Clip
from klimb.losses.names import check_penalty_name
from klimb.losses.recipes import recipe_named
from klimb.training.settings import ReferenceSettings
from klimb.workbench.config.bounds import PYTHON_NAME, SECTION


def _is_recipe(name: str) -> str:
    recipe_named(name)
    return name


def _is_divergence(name: str) -> str:
    if not PYTHON_NAME.match(name):
        check_penalty_name(name)
    return name


RecipeName = Annotated[ShortText, AfterValidator(_is_recipe)]


DivergenceName = Annotated[ShortText, AfterValidator(_is_divergence)]


@configurable
@dataclass(frozen=True)
class OwnClip:
    """A clip of your own."""

    kind: OwnName
    """Where it is: a function of (w, is_good, log_pi) that returns `Clipped`, or a class of such objects."""


class ClipOfKind(Clip, Protocol):
    """A clip that is told apart from others by its `kind`."""

    @property
    def kind(self) -> str:
        """Its name in a file."""
        ...


# The registries say which there are; a type checker sees the type of their rows.
if TYPE_CHECKING:
    AdvantageName = str
    ClipSettings = ClipOfKind | OwnClip
else:
    AdvantageName = Literal[tuple(ADVANTAGES)] | OwnName
    ClipSettings = Annotated[Any, OneOf({kind: type(clip) for kind, clip in CLIPS.items()}, own=OwnClip)]


class ObjectiveSection(BaseModel):
    """J = E[R] - beta * divergence, and the surrogate whose gradient is that of J."""

    model_config = SECTION

    recipe: RecipeName
    """Named set of settings; every key given beside it overrides it. `klimb recipes` lists them."""
    loss: Literal["policy-gradient", "squared-residual", "kto"]
    """Which loss: each reads only its own keys of this section."""
    divergence: DivergenceName
    """Divergence between the policy and the reference: a name, or `python:module.name` for your own."""
    beta: Annotated[float, Field(ge=0, le=1_000)]
    """Weight of the divergence; 0 switches it off."""
    estimator: Literal["reinforce", "differentiable"]
    """Detached weight times log pi, or a surrogate that is differentiated through."""
    level: Literal["token", "prefix", "sequence", "sequence-mean"]
    """The unit over which the importance weight is formed."""
    reduce: (
        Literal["token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum", "max-new-tokens"]
        | Annotated[int, Field(ge=1, le=MOST)]
    )
    """How tokens are averaged; a number divides each sequence by that length, `max-new-tokens` by sampling's own."""
    clip: ClipSettings
    """What happens to large and small importance weights."""
    ratio: Literal["recorded", "none"]
    """`recorded` weighs by w = pi/mu from log_mu; `none` forms no ratio and needs no log_mu."""
    anchor: Literal["mu", "ref"]
    """Squared residual: what the log-ratio is to, the behaviour policy or the reference."""
    value: Literal["given", "group-optimal", "batch-optimal"]
    """Squared residual: the value V, taken from the advantages or fitted to each minibatch."""
    desirable_weight: Annotated[float, Field(gt=0, le=1_000)]
    """KTO: weight of responses with a reward above 0.5."""
    undesirable_weight: Annotated[float, Field(gt=0, le=1_000)]
    """KTO: weight of the others."""


class AdvantagesSection(BaseModel):
    """From rewards to advantages, and which groups are trained on."""

    model_config = SECTION

    kind: AdvantageName = "group-mean"
    """The baseline, and what the difference is divided by. Soft values take objective.beta as their temperature."""
    offset: Annotated[float, Field(ge=-1_000, le=1_000)] = 0.0
    """Added to the baseline; below 0 every response looks that much better (AsymRE)."""
    min_reward: Annotated[float, Field(ge=-1_000_000, le=1_000_000)] | Literal["none"] = "none"
    """Responses with a smaller reward are not trained on (filtered cloning); `none` trains on all."""
    group_filter: bool = True
    """Drop groups from which nothing can be learnt and sample others in their place (dynamic sampling)."""
    max_refills: Annotated[int, Field(ge=0, le=1_000)] = 2
    """Extra rounds of sampling at most, when groups were dropped."""
    shuffle_rewards: bool = False
    """The control experiment: rewards are exchanged at random, so that nothing can be learnt."""


def automatic_warmup(num_optimizer_steps: int) -> int:
    """Return a tenth of the steps, rounded up, and at most 10: short runs still train at their learning rate.

    Other trainers take a share of the run too (`warmup_ratio` in transformers, rounded up; 0.03 in OpenRLHF), or none
    (0 in verl). Ten steps are enough for AdamW's averages to fill at beta1 = 0.9.
    """
    return min(10, math.ceil(num_optimizer_steps / 10))


class OptimizerSection(BaseModel):
    """How a gradient becomes a step."""

    model_config = SECTION

    kind: Literal["adamw", "schedule-free"] = "adamw"
    """AdamW, or Schedule-Free AdamW."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Step size after the warm-up."""
    warmup_steps: CountOrZero | Literal["auto"] = "auto"
    """The step size grows linearly over this many optimiser steps. `auto` is a tenth of the run, at most 10; the run
    keeps that number, also when it is resumed for longer."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Decoupled weight decay."""
    decay_vectors: bool = True
    """Whether norms and biases decay too."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the gradient average."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the squared-gradient average."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the denominator."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1_000_000)] = 1.0
    """A longer gradient is scaled down to this norm."""
    ess_scaling: Literal["none", "token", "sequence-mean", "sequence"] = "none"
    """Multiply the learning rate by the root of the share of each minibatch that its weights leave effective."""


def check_divergence_acts(
    objective: ObjectiveSection,
    slope: SlopeAtReference,
    *,
    advantages: AdvantagesSection,
    reference: ReferenceSettings,
    is_fresh: bool,
) -> None:
    """Return if the divergence does what its name says, on samples that no ratio weighs.

    Where w = π/μ is formed, every divergence does. Where it is not, the gradient is −E_μ[(A − β·f′(r))·∇log π]: f′(1)
    is a constant beside every advantage, and it is all there is if ref = μ. `is_fresh`: μ is the policy itself.

    Raises:
        ValueError: it does nothing, or something else.
    """
    if objective.loss != "policy-gradient":
        return
    learns_nothing = advantages.kind == "zero"
    if learns_nothing and objective.beta == 0:
        raise ValueError("objective.beta is 0 and advantages.kind is 'zero': then nothing is learnt; set beta = 1")
    tapers = objective.clip.kind == "taper" and objective.estimator == "reinforce"
    has_no_ratio = objective.ratio == "none"
    if objective.beta == 0 or not (has_no_ratio or tapers):
        return
    name, constant = objective.divergence, slope.constant
    if has_no_ratio and reference.kind == "behaviour":
        if not slope.is_forward_kl:
            raise ValueError(
                f"objective.divergence = {name!r} {_effect_of(constant)}: without a ratio (objective.ratio = 'none') "
                "and with ref = mu its slope is the constant f'(1); only forward KL needs no ratio to the data: set "
                "objective.divergence = 'fkl'"
            )
    elif abs(constant) > 1e-6 and not is_fresh:
        raise ValueError(
            f"objective.divergence = {name!r} {_effect_of(constant)}, whatever the reference: no ratio weighs it, and "
            "f'(1) is not 0; set objective.divergence = 'urkl' or 'ufkl', which leave pi = ref alone"
        )
    elif has_no_ratio and learns_nothing and abs(constant) <= 1e-6:
        raise ValueError(
            f"objective.divergence = {name!r} does nothing with advantages.kind = 'zero' and reference.kind = "
            f"{reference.kind!r}: the policy starts at its reference; set objective.divergence = 'fkl' and "
            "reference.kind = 'behaviour' to clone the data"
        )


def _effect_of(constant: float) -> str:
    """Return what a constant f′(1) does to samples of another policy."""
    if abs(constant) <= 1e-6:
        return "does nothing"
    verb = "lowers" if constant > 0 else "raises"
    return f"{verb} the probability of every response by the constant f'(1) = {constant:g}"


class TrainingSection(BaseModel):
    """How long and in which portions it trains."""

    model_config = SECTION

    num_steps: Count = 100
    """Collections: each samples, scores and trains on one batch."""
    num_epochs: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Passes over each batch."""
    num_minibatches: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Optimiser steps per pass."""
    micro_batch_tokens: Annotated[int, Field(ge=1, le=MOST)] | Literal["auto"] = "auto"
    """Tokens (prompt and answer) that go through the model at once; changes memory and speed, not the result. `auto`
    takes whole groups, in portions near 1,024 on a CPU (more with many threads) and 8,192 on a GPU."""
    max_skipped_steps: CountOrZero = 5
    """The run stops after this many steps in a row with a non-finite loss or gradient."""
    max_seconds: Seconds | Literal["none"] = "none"
    """Stop training early, as if the last step were done, so that the whole run with its evaluations fits into this."""
    max_generated_tokens: Annotated[int, Field(ge=1, le=10**15)] | Literal["none"] = "none"
    """Stop after the step in which this many answer tokens were drawn in all, dropped groups included."""
    max_training_seconds: Seconds | Literal["none"] = "none"
    """Stop after the step in which the steps alone, without evaluations, have taken this long."""
    log_mu: Literal["sampler", "recomputed", "auto"] = "sampler"
    """`recomputed` scores each batch again with the trainer, which removes the gap to the sampler and costs a pass;
    `auto` does so where the measured gap is larger than `max_mismatch`."""
    num_mismatch_rows: Annotated[int, Field(ge=0, le=100_000)] = 8
    """Answers per step that the trainer scores to measure that gap, where the update does not show it at no cost; 0
    leaves it out."""
    max_mismatch: Annotated[float, Field(gt=0, le=1_000)] = 0.05
    """Mean difference in nats a token above which `auto` does not take the sampler's log-probabilities."""
    num_threads: Annotated[int, Field(ge=0, le=4_096)] = 0
    """CPU threads; 0 leaves PyTorch's choice."""


class CloningSection(BaseModel):
    """A warm-up by behaviour cloning before the first collection."""

    model_config = SECTION

    path: PathText
    """JSONL, Parquet or CSV file with one example per row."""
    prompt: ShortText = "prompt"
    """Column that holds what is asked."""
    response: ShortText = "response"
    """Column that holds the answer to imitate."""
    num_epochs: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Passes over the file."""
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Examples per optimiser step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Step size; all else of the optimizer is as in its own section."""
    warmup_steps: CountOrZero | Literal["auto"] = "auto"
    """As optimizer.warmup_steps, and that number if one is given there; `auto` is a tenth of the cloning's steps."""

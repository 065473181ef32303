"""What a loss is told, as plain frozen values; each is also a table of a run file. Read without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

from annotated_types import Ge, Gt, Le, Lt

from klimb.declarations import MOST, Checked, OneOf, OrWord, OwnName, configurable, require, require_known
from klimb.divergences.names import check_divergence_name
from klimb.losses.clips import CLIPS, Clip, DualClip, Mask, MinibatchClip, NoClip, Taper, Truncate, clip_named
from klimb.losses.names import (
    ANCHORS,
    ESTIMATORS,
    LEVELS,
    MAX_NEW_TOKENS,
    PAIR_FORMS,
    RATIOS,
    SEQUENCE_LEVELS,
    VALUES,
    Anchor,
    Estimator,
    Level,
    PairForm,
    Ratio,
    Reduce,
    ReduceName,
    SequenceLevel,
    Value,
    check_penalty_name,
    require_reduction,
)
from klimb.own_parts import is_own

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


@runtime_checkable
class Penalty(Protocol):
    """What an `Objective` subtracts, times β: a value in (w, v, x) and the weight of ∇log π in its gradient.

    A `Divergence` is one whose gradient is that of its value under the policy.
    """

    @property
    def name(self) -> str:
        """Shown in logs and errors."""
        ...

    def perspective(self, w: Tensor, v: Tensor, x: Tensor, /) -> Tensor:
        """Return the value per unit, differentiable in w and x."""
        ...

    def slope(self, w: Tensor, v: Tensor, x: Tensor, /) -> Tensor:
        """Return the weight of ∇log π in its gradient."""
        ...


def check_penalty(name: str) -> str:
    """Return the name if it is one of a divergence, of a penalty, or of something of the user's own.

    Raises:
        ValueError: it is none.
    """
    if not is_own(name):
        check_penalty_name(name)
    return name


@configurable
@dataclass(frozen=True)
class OwnClip:
    """A clip of your own."""

    kind: OwnName
    """Where it is: a function of (w, is_good, log_pi) that returns `Clipped`, or a class of such objects."""


# A file gives names and tables; Python may give the objects too, and a type checker sees those.
if TYPE_CHECKING:
    PenaltyOrName = str | Penalty
    ClipOrName = str | Clip
    RunReduce = Reduce
else:
    PenaltyOrName = Annotated[Any, Checked(check_penalty)]
    ClipOrName = Annotated[Any, OneOf({kind: type(clip) for kind, clip in CLIPS.items()}, own=OwnClip)]
    RunReduce = ReduceName | Literal["max-new-tokens"] | Annotated[int, Ge(1), Le(MOST)]


@configurable
@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """J = E[R] - beta * divergence, and the surrogate whose gradient is that of J."""

    loss: Literal["policy-gradient"] = field(default="policy-gradient", repr=False)
    """A policy gradient."""
    divergence: PenaltyOrName = "urkl"
    """Divergence between the policy and the reference: a name, or `python:module.name` for your own."""
    beta: Annotated[float, Ge(0), Le(1_000)] = 1e-4
    """Weight of the divergence, in units of the advantage per nat; 0 switches it off."""
    estimator: Estimator = "reinforce"
    """Detached weight times log pi, or a surrogate that is differentiated through."""
    level: Level = "token"
    """The unit over which the importance weight is formed."""
    clip: ClipOrName = field(default_factory=DualClip)
    """What happens to large and small importance weights."""
    reduce: RunReduce = "token-mean"
    """How tokens are averaged; a number divides each sequence by that length, `max-new-tokens` by sampling's own."""
    ratio: Ratio = "recorded"
    """`recorded` weighs by w = pi/mu from log_mu; `none` forms no ratio and needs no log_mu."""
    entropy_bonus: Annotated[float, Ge(0), Le(1_000)] = 0.0
    """Weight of the policy's entropy in nats, averaged over the tokens of the batch by `reduce` and subtracted from the
    loss; 0 switches it off. The tokens are those that were drawn: it is no divergence of whole answers."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.beta) and self.beta >= 0, "beta", self.beta, "finite and >= 0")
        bonus = self.entropy_bonus
        require(math.isfinite(bonus) and bonus >= 0, "entropy_bonus", bonus, "finite and >= 0")
        require_known("estimator", self.estimator, ESTIMATORS)
        require_known("level", self.level, LEVELS)
        require_known("ratio", self.ratio, RATIOS)
        _require_reduction(self.reduce)
        if isinstance(self.divergence, str):
            check_penalty(self.divergence)
        if isinstance(self.clip, str):
            clip = OwnClip(kind=self.clip) if is_own(self.clip) else clip_named(self.clip)
            object.__setattr__(self, "clip", clip)

    @property
    def needs_log_mu(self) -> bool:
        """Whether log_mu is read."""
        return self.ratio == "recorded"

    @property
    def needs_log_ref(self) -> bool:
        """Whether a reference takes part; with `ratio = "none"` no log_ref still means ref = μ."""
        return self.beta > 0

    @property
    def needs_minibatch(self) -> bool:
        """Whether the clip's bounds come from the whole minibatch."""
        return isinstance(self.clip, MinibatchClip)

    @property
    def needs_entropy(self) -> bool:
        """Whether the entropy of the policy is in the loss."""
        return self.entropy_bonus > 0

    @property
    def bounds_weights(self) -> bool:
        """True if no weight can exceed 1, because there is none or it is tapered: made for many passes over a log."""
        return self.ratio == "none" or isinstance(self.clip, Taper)


@configurable
@dataclass(frozen=True, kw_only=True)
class SquaredResidualSettings:
    """The squared difference between beta * log(pi/anchor) and the advantage that it has at the optimum."""

    loss: Literal["squared-residual"] = field(default="squared-residual", repr=False)
    """A squared residual."""
    beta: Annotated[float, Gt(0), Le(1_000)]
    """Weight of KL(pi||anchor) in the objective whose optimum is regressed onto, in units of reward per nat."""
    anchor: Anchor = "mu"
    """What the log-ratio is to, the behaviour policy or the reference."""
    value: Value = "given"
    """The value V, taken from the advantages or fitted to each minibatch, by group or as a whole."""
    level: SequenceLevel = "sequence"
    """The log-ratio of a response, or its mean over the tokens."""
    reduce: RunReduce = "sequence-mean-token-sum"
    """How tokens are averaged; a number divides each sequence by that length, `max-new-tokens` by sampling's own."""

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.beta) and self.beta > 0, "beta", self.beta, "finite and > 0 (the loss divides by it)"
        )
        require_known("anchor", self.anchor, ANCHORS)
        require_known("value", self.value, VALUES)
        require_known("level of a squared residual", self.level, SEQUENCE_LEVELS)
        _require_reduction(self.reduce)

    @property
    def needs_log_mu(self) -> bool:
        """Whether log_mu is read: where it is the anchor."""
        return self.anchor == "mu"

    @property
    def needs_log_ref(self) -> bool:
        """Whether log_ref is read: where it is the anchor."""
        return self.anchor == "ref"

    @property
    def needs_minibatch(self) -> bool:
        """Whether V is made from the whole minibatch."""
        return self.value != "given"

    bounds_weights: ClassVar[bool] = True
    """There are no weights."""

    @property
    def needs_entropy(self) -> bool:
        """Whether there is an entropy bonus: there is none."""
        return False


@configurable
@dataclass(frozen=True, kw_only=True)
class KtoSettings:
    """The prospect-theoretic loss of thumbs up and down, one response each."""

    loss: Literal["kto"] = field(default="kto", repr=False)
    """KTO."""
    beta: Annotated[float, Gt(0), Le(1_000)] = 0.1
    """How fast the utility saturates, per nat of log(pi/ref)."""
    desirable_weight: Annotated[float, Ge(0), Le(1_000)] = 1.0
    """Weight of responses with a reward above 0.5."""
    undesirable_weight: Annotated[float, Ge(0), Le(1_000)] = 1.0
    """Weight of the others. TRL's documentation asks for weights that make both sides count between 1:1 and 4:3."""
    reduce: RunReduce = "sequence-mean-token-sum"
    """How tokens are averaged; a number divides each sequence by that length, `max-new-tokens` by sampling's own."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.beta) and self.beta > 0, "beta", self.beta, "finite and > 0")
        for name in ("desirable_weight", "undesirable_weight"):
            weight = getattr(self, name)
            require(math.isfinite(weight) and weight >= 0, name, weight, "finite and >= 0")
        if self.desirable_weight == self.undesirable_weight == 0:
            raise ValueError("desirable_weight and undesirable_weight are both 0: then nothing is learnt; raise one")
        _require_reduction(self.reduce)

    bounds_weights: ClassVar[bool] = True
    """There are no weights."""

    @property
    def needs_entropy(self) -> bool:
        """Whether there is an entropy bonus: there is none."""
        return False

    @property
    def needs_log_mu(self) -> bool:
        """False: log_mu is not read."""
        return False

    @property
    def needs_log_ref(self) -> bool:
        """True."""
        return True

    @property
    def needs_minibatch(self) -> bool:
        """True: the reference point is of a whole minibatch."""
        return True


def _check_divergence(name: str) -> str:
    check_divergence_name(name)
    return name


PAIR_SLOPES = ("rkl", "urkl")
"""Divergences whose f'(r) is log r and a constant: the same differences within a prompt, and no exp."""


@configurable
@dataclass(frozen=True, kw_only=True)
class PairwiseSettings:
    """Two answers to one prompt, the better against the worse: every pair of a group whose rewards differ."""

    loss: Literal["pairwise"] = field(default="pairwise", repr=False)
    """Pairs of answers."""
    form: PairForm = "dpo"
    """`dpo` and `ipo` read which answer is better, `rebel` by how much."""
    beta: Annotated[float, Gt(0), Le(1_000)] = 0.1
    """Weight of the divergence in the objective whose optimum the pairs are compared with, per nat."""
    anchor: Anchor = "ref"
    """What the log-ratio is to, the reference or the behaviour policy."""
    divergence: Annotated[str, Checked(_check_divergence)] = "rkl"
    """Divergence between the policy and the anchor whose slope f'(pi/anchor) stands in a pair; `dpo` and `rebel`."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Share of pairs that are taken to be named the wrong way round; `dpo` alone."""
    level: SequenceLevel = "sequence"
    """The log-ratio of a response, or its mean over the tokens."""

    reduce: ClassVar[str] = "pair-mean"
    """The mean over the pairs of a minibatch; there is no other."""
    bounds_weights: ClassVar[bool] = True
    """There are no weights."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.beta) and self.beta > 0, "beta", self.beta, "finite and > 0")
        require_known("form", self.form, PAIR_FORMS)
        require_known("anchor", self.anchor, ANCHORS)
        require_known("level of a pair", self.level, SEQUENCE_LEVELS)
        smoothing = self.label_smoothing
        require(0 <= smoothing < 0.5, "label_smoothing", smoothing, "in [0, 0.5): at a half no pair says anything")
        check_divergence_name(self.divergence)
        if smoothing and self.form != "dpo":
            raise ValueError(
                f"label_smoothing = {smoothing:g} does nothing with form = {self.form!r}; set it to 0, or form = 'dpo'"
            )
        if self.divergence not in PAIR_SLOPES and (self.form == "ipo" or self.level == "sequence-mean"):
            where = "form = 'ipo'" if self.form == "ipo" else "level = 'sequence-mean'"
            raise ValueError(
                f"divergence = {self.divergence!r} with {where}: there the pair is one of log-ratios, those of 'rkl'; "
                "set divergence = 'rkl', or form = 'dpo' and level = 'sequence'"
            )

    @property
    def needs_log_mu(self) -> bool:
        """Whether log_mu is read: where it is the anchor."""
        return self.anchor == "mu"

    @property
    def needs_log_ref(self) -> bool:
        """Whether log_ref is read: where it is the anchor."""
        return self.anchor == "ref"

    @property
    def needs_minibatch(self) -> bool:
        """True: a pair may fall into two micro-batches."""
        return True

    @property
    def needs_entropy(self) -> bool:
        """Whether there is an entropy bonus: there is none."""
        return False


LossSettings = ObjectiveSettings | SquaredResidualSettings | KtoSettings | PairwiseSettings


LOSSES: Mapping[str, type[LossSettings]] = {
    "policy-gradient": ObjectiveSettings,
    "squared-residual": SquaredResidualSettings,
    "kto": KtoSettings,
    "pairwise": PairwiseSettings,
}
"""Every loss by the name that `loss` has in a file."""


def _require_reduction(reduce: str | int) -> None:
    if reduce != MAX_NEW_TOKENS:
        require_reduction(reduce)


OffPolicyMask = Annotated[Annotated[float, Gt(0), Le(1_000)] | None, OrWord("none", None)]


LargestWeight = Annotated[float, Gt(1), Le(1_000_000)]


def _check_correction(correction: "Correction") -> None:
    require_known("level", correction.level, LEVELS)
    mask = correction.off_policy_mask
    if mask is not None:
        require(mask > 0, "off_policy_mask", mask, "> 0 nats per token, or None")
    if isinstance(correction, TruncatedCorrection | NormalisedCorrection | MaskedCorrection):
        require(correction.high > 1, "correction high", correction.high, "> 1")
    if isinstance(correction, MaskedCorrection):
        require(0 <= correction.low < 1, "correction low", correction.low, "in [0, 1)")


@configurable
@dataclass(frozen=True, kw_only=True)
class NoCorrection:
    """The objective weighs by pi/mu itself."""

    kind: Literal["none"] = field(default="none", repr=False)
    """No weight besides."""
    off_policy_mask: OffPolicyMask = None
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""

    rule: ClassVar[None] = None
    normalised: ClassVar[bool] = False
    level: ClassVar[Level] = "token"

    def __post_init__(self) -> None:
        _check_correction(self)


@configurable
@dataclass(frozen=True, kw_only=True)
class DecoupledCorrection:
    """The clip acts on pi/prox, prox the policy at the start of the update; terms are weighed by prox/mu as it is."""

    kind: Literal["decoupled"] = field(default="decoupled", repr=False)
    """Decoupled proximal policy."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    off_policy_mask: OffPolicyMask = None
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""

    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_correction(self)

    @property
    def rule(self) -> NoClip:
        """Every weight as it is."""
        return NoClip()


@configurable
@dataclass(frozen=True, kw_only=True)
class TruncatedCorrection:
    """The same with the weight min(prox/mu, high) (TIS)."""

    kind: Literal["truncate"] = field(default="truncate", repr=False)
    """Truncated importance sampling."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    high: LargestWeight = 2.0
    """Largest weight."""
    off_policy_mask: OffPolicyMask = None
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""

    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_correction(self)

    @property
    def rule(self) -> Truncate:
        """Weights of at most `high`."""
        return Truncate(low=1.0, high=self.high - 1)


@configurable
@dataclass(frozen=True, kw_only=True)
class NormalisedCorrection:
    """The same with the weight min(prox/mu, high), divided by its mean over the minibatch."""

    kind: Literal["normalised"] = field(default="normalised", repr=False)
    """Self-normalised truncated importance sampling."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    high: LargestWeight = 2.0
    """Largest weight before the division."""
    off_policy_mask: OffPolicyMask = None
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""

    normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_correction(self)

    @property
    def rule(self) -> Truncate:
        """Weights of at most `high`, before the division."""
        return Truncate(low=1.0, high=self.high - 1)


@configurable
@dataclass(frozen=True, kw_only=True)
class MaskedCorrection:
    """The same with units left out whose prox/mu leaves the band (IcePop at token level, MIS at sequence level)."""

    kind: Literal["mask"] = field(default="mask", repr=False)
    """Masked importance sampling."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    low: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Smallest weight that counts."""
    high: LargestWeight = 5.0
    """Largest weight that counts."""
    off_policy_mask: OffPolicyMask = None
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""

    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_correction(self)

    @property
    def rule(self) -> Mask:
        """Weights inside of the band."""
        return Mask(self.low, self.high)


@configurable
@dataclass(frozen=True, kw_only=True)
class AutomaticCorrection:
    """`decoupled` where the policy is not mu before the first step on a batch and the clip would act on that alone.

    That is where answers are drawn at another temperature than the policy's or with top-p, top-k or min-p and without
    sampling.record_support, and, for a clip that is a trust region, where a share comes from a log or from feedback.
    Elsewhere `none`.
    """

    kind: Literal["auto"] = field(default="auto", repr=False)
    """Decoupled where the policy is not mu from the start, none elsewhere."""
    off_policy_mask: OffPolicyMask = None
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""

    def __post_init__(self) -> None:
        if self.off_policy_mask is not None:
            require(self.off_policy_mask > 0, "off_policy_mask", self.off_policy_mask, "> 0 nats per token, or None")


Correction = NoCorrection | DecoupledCorrection | TruncatedCorrection | NormalisedCorrection | MaskedCorrection


CORRECTIONS: Mapping[str, type[Correction]] = {row.kind: row for row in get_args(Correction)}
"""Every correction by its kind."""


AnyCorrection = Correction | AutomaticCorrection


CORRECTION_CHOICES: Mapping[str, type[AnyCorrection]] = {"auto": AutomaticCorrection, **CORRECTIONS}
"""What `correction.kind` may be in a run file."""

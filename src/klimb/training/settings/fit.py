"""Whether settings and a loss fit together: what cannot act is refused, whoever gave it. Read without torch."""

from typing import TYPE_CHECKING

from klimb.divergences.names import SlopeAtReference
from klimb.experience.advantages import SOFT_VALUES
from klimb.losses.clips import NoClip
from klimb.losses.names import SEQUENCE_LEVELS
from klimb.losses.settings import (
    AutomaticCorrection,
    Correction,
    DecoupledCorrection,
    KtoSettings,
    LossSettings,
    NoCorrection,
    ObjectiveSettings,
    PairwiseSettings,
    SquaredResidualSettings,
)
from klimb.own_parts import is_own
from klimb.training.settings.loop import LoopSettings

if TYPE_CHECKING:
    from klimb.losses import Loss


def check_loss_fits(settings: LoopSettings, loss: "LossSettings | Loss", slope: SlopeAtReference | None) -> None:
    """Return if the loss can do what its settings say, in a run of these settings.

    Args:
        settings: of the run.
        loss: what is minimised.
        slope: of its divergence where π = ref = μ; None where it is not known, and not judged.

    Raises:
        ValueError: something does nothing, or needs what is not there.
    """
    if settings.reference.kind == "none" and loss.needs_log_ref:
        raise ValueError(
            f"objective.beta is {loss.beta:g} but reference.kind is 'none': a divergence needs a reference; set "
            "objective.beta = 0 or another reference.kind"
        )
    if settings.advantages.kind in SOFT_VALUES and loss.beta == 0:
        raise ValueError(
            f"advantages.kind = {settings.advantages.kind!r} takes objective.beta as its temperature, and it is 0; set "
            "objective.beta above 0, or another advantages.kind"
        )
    _check_feedback(settings, loss)
    _check_units_of_credit(settings, loss)
    _check_comments(settings, loss)
    if isinstance(loss, ObjectiveSettings) and slope is not None:
        _check_divergence_acts(settings, loss, slope)


def why_centred(settings: LoopSettings, loss: LossSettings) -> str:
    """Return why the clip is to be centred on the policy before each batch, in settings; empty if it is not.

    Where π ≠ μ before the first step, a clip of π/μ acts on that and not on what was learnt: noise alone then moves the
    policy. So any clip is centred where this run draws from another distribution than its policy, and a clip that is a
    trust region also where other policies drew the samples; a clip that but bounds weights is made for those.
    """
    if not isinstance(loss, ObjectiveSettings) or loss.ratio == "none" or isinstance(loss.clip, NoClip):
        return ""
    if getattr(loss.clip, "is_trust_region", True):
        return settings.why_mu_is_another
    return settings.why_drawn_otherwise if settings.sources.share("rollout") > 0 else ""


def choose_correction(correction: AutomaticCorrection, settings: LoopSettings, loss: LossSettings) -> Correction:
    """Return the correction that `auto` stands for in a run of these settings."""
    if isinstance(loss, ObjectiveSettings) and why_centred(settings, loss):
        return DecoupledCorrection(level=loss.level, off_policy_mask=correction.off_policy_mask)
    return NoCorrection(off_policy_mask=correction.off_policy_mask)


def _check_feedback(settings: LoopSettings, loss: "LossSettings | Loss") -> None:
    """Return if KTO gets what it reads, thumbs up or down, +1 or -1; and pairs theirs: the rewards as they are."""
    kind = settings.advantages.kind
    if isinstance(loss, PairwiseSettings) and kind != "no-baseline" and not is_own(kind):
        raise ValueError(
            f"advantages.kind = {kind!r} and the loss pairwise, which takes the rewards of a group as they are: in a "
            "pair a baseline falls out; set advantages.kind = 'no-baseline'"
        )
    if isinstance(loss, PairwiseSettings) and settings.sources.share("rollout") and settings.sampling.num_samples == 1:
        raise ValueError(
            "sampling.num_samples is 1 and the loss pairwise compares the answers to one prompt; draw at least 2"
        )
    if isinstance(loss, KtoSettings) and kind != "binary-feedback" and not is_own(kind):
        raise ValueError(
            f"advantages.kind = {kind!r} and the loss kto, which takes +1 (desirable) or -1 (undesirable) a response; "
            "set advantages.kind = 'binary-feedback'"
        )


def _check_units_of_credit(settings: LoopSettings, loss: "LossSettings | Loss") -> None:
    """Return if the loss can take advantages that differ within a response, where there are such."""
    kind = settings.credit.kind
    if kind == "response":
        return
    if isinstance(loss, ObjectiveSettings) and loss.level in SEQUENCE_LEVELS:
        raise ValueError(
            f"credit.kind = {kind!r} gives the tokens of one response different advantages, and objective.level = "
            f"{loss.level!r} weighs whole responses; set credit.kind = 'response', or objective.level = 'token'"
        )
    if isinstance(loss, KtoSettings | SquaredResidualSettings | PairwiseSettings):
        raise ValueError(
            f"credit.kind = {kind!r} gives the tokens of one response different advantages, and the loss {loss.loss} "
            "takes one a response; set credit.kind = 'response'"
        )


def _check_comments(settings: LoopSettings, loss: "LossSettings | Loss") -> None:
    """Return if the loss takes an advantage a token, where comments give such; and there is who is shown them."""
    told = settings.feedback
    if not told.comment_weight:
        return
    takes_whole_responses = isinstance(loss, KtoSettings | SquaredResidualSettings | PairwiseSettings)
    if takes_whole_responses or (isinstance(loss, ObjectiveSettings) and loss.level in SEQUENCE_LEVELS):
        raise ValueError(
            f"feedback.comment_weight = {told.comment_weight:g} gives the tokens of one response different advantages, "
            "and this loss takes one a response; take a policy gradient with objective.level = 'token', or set "
            "feedback.comment_weight = 0"
        )
    if told.comment_teacher == "reference" and settings.reference.kind in ("none", "behaviour"):
        raise ValueError(
            f"feedback.comment_teacher = 'reference' and reference.kind = {settings.reference.kind!r}: there is no "
            "model to show the comment to; set reference.kind = 'fixed', or comment_teacher = 'policy'"
        )


def _check_divergence_acts(settings: LoopSettings, objective: ObjectiveSettings, slope: SlopeAtReference) -> None:
    """Return if the divergence does what its name says, on samples that no ratio weighs.

    Where w = π/μ is formed, every divergence does. Where it is not, the gradient is −E_μ[(A − β·f′(r))·∇log π]: f′(1)
    is a constant beside every advantage, and it is all there is if ref = μ.
    """
    advantages, reference = settings.advantages, settings.reference
    learns_nothing = advantages.kind == "zero"
    if learns_nothing and objective.beta == 0 and objective.entropy_bonus == 0:
        raise ValueError("objective.beta is 0 and advantages.kind is 'zero': then nothing is learnt; set beta = 1")
    tapers = objective.bounds_weights and objective.estimator == "reinforce"
    has_no_ratio = objective.ratio == "none"
    if objective.beta == 0 or not (has_no_ratio or tapers):
        return
    effect = _effect_of(slope.constant)
    named = objective.divergence if isinstance(objective.divergence, str) else objective.divergence.name
    name = f"objective.divergence = {named!r}"
    if has_no_ratio and reference.kind == "behaviour":
        if not slope.is_forward_kl:
            raise ValueError(
                f"{name} {effect}: without a ratio (objective.ratio = 'none') and with ref = mu its slope is the "
                "constant f'(1); only forward KL needs no ratio to the data: set objective.divergence = 'fkl'"
            )
    elif abs(slope.constant) > 1e-6 and not settings.is_fresh:
        raise ValueError(
            f"{name} {effect}, whatever the reference: no ratio weighs it, and f'(1) is not 0; set "
            "objective.divergence = 'urkl' or 'ufkl', which leave pi = ref alone"
        )
    elif has_no_ratio and learns_nothing and abs(slope.constant) <= 1e-6:
        raise ValueError(
            f"{name} does nothing with advantages.kind = 'zero' and reference.kind = {reference.kind!r}: the policy "
            "starts at its reference; set objective.divergence = 'fkl' and reference.kind = 'behaviour' to clone the "
            "data"
        )


def _effect_of(constant: float) -> str:
    """Return what a constant f′(1) does to samples of another policy."""
    if abs(constant) <= 1e-6:
        return "does nothing"
    verb = "lowers" if constant > 0 else "raises"
    return f"{verb} the probability of every response by the constant f'(1) = {constant:g}"


def check_evaluation_fits(settings: LoopSettings, *, has_held_out: bool, has_base_metrics: bool) -> None:
    """Return if there is what the evaluations and the guard ask for.

    Raises:
        ValueError: there isn't.
    """
    if settings.guard is not None and not has_base_metrics:
        raise ValueError("settings.guard is given, and nothing that measures; give base_metrics, or no guard")
    if settings.evaluation.is_on and not has_held_out:
        raise ValueError(
            "evaluations while training are asked for, and there are no held-out problems; give some, or set "
            "evaluation.every_steps, every_tokens and every_seconds to 0"
        )

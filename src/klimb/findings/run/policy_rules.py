"""Rules about the optimisation: numbers that are not finite, the sampler, the ratios, the divergence, the entropy."""

from collections.abc import Sequence
from dataclasses import replace

from klimb.findings.finding import Finding, Steps
from klimb.findings.metrics.of_losses import CLIP_FRACTIONS
from klimb.findings.run.evidence import (
    Curve,
    at,
    counts_of,
    curve_of,
    has_lost_reward,
    in_words,
    is_cloning,
    is_solved,
    outcome_curve,
    runs_of_steps,
)
from klimb.findings.run.record import RunRecord, is_number
from klimb.findings.run.thresholds import Thresholds

WEIGHT_BOUNDS = ("truncate", "mask", "taper")
"""Clips that bound weights whoever drew the samples, and are no trust region about the policy."""


def non_finite_steps(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Optimizer steps were skipped because their loss or gradient was not finite."""
    counts, taken = counts_of(record, "num_skipped_steps"), sum(counts_of(record, "num_optimizer_steps").values())
    skipped = sum(counts.values())
    if not skipped:
        return None
    share = skipped / (skipped + taken)
    where = [step for step, count in counts.items() if count]
    return Finding(
        status="bad" if share > limits.max_skipped else "warning",
        title="Steps were skipped: the loss or the gradient was not finite",
        evidence=f"{skipped:.0f} of {skipped + taken:.0f} optimizer steps ({share:.1%}), at {runs_of_steps(where)}.",
        advice="Look at the samples in skipped/ for an extreme reward or log_mu; then lower optimizer.learning_rate.",
        steps=(where[0], where[-1]),
    )


def sampler_gap(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the sampler's log-probabilities are not the trainer's for the same tokens and weights."""
    k3, mean_abs = (curve_of(record, name, limits) for name in ("mismatch_k3", "mismatch_mean_abs"))
    if k3 is None or mean_abs is None:
        return None
    if k3.median <= limits.mismatch_k3 and mean_abs.median <= limits.mismatch_mean_abs:
        return None
    is_bad = k3.median > limits.mismatch_k3_bad
    return Finding(
        status="bad" if is_bad else "warning",
        title="Sampler and trainer disagree about the same tokens",
        evidence=(
            f"Median over {len(k3.values)} steps, before any update: k3 {k3.median:.2g} nats per token (limit "
            f"{limits.mismatch_k3_bad if is_bad else limits.mismatch_k3:g}), mean |Δ| {mean_abs.median:.2g} (limit "
            f"{limits.mismatch_mean_abs:g}). Every importance weight carries this error."
        ),
        advice=(
            "Compare temperature, top-p, chat template and end token of the sampler with [sampling]; if only rounding "
            'is left, training.log_mu = "recomputed" removes it.'
        ),
        steps=k3.span,
    )


def clip_at_start(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Find a clip of π/μ that acts before the first step, since μ is another distribution than the policy's."""
    touched = curve_of(record, "clip_at_start_fraction", limits)
    causes = _why_mu_is_another(record)
    if touched is None or touched.median <= limits.max_clipped_at_start or not causes:
        return None
    kind = record.setting("objective.clip.kind", "")
    if kind in WEIGHT_BOUNDS:
        title = "The clip bounds weights before the first step"
        advice = f"It is what objective.clip.kind = {kind!r} is for: bias for variance. Nearer data needs less of it."
    else:
        title = "The clip acts before the first step, without anything learnt"
        advice = (
            'Leave correction.kind at "auto" (or set "decoupled"): the clip is then centred on the policy before the '
            "batch, and π/μ stays a weight. Or let model.temperature be that of the sampling, with nothing cut "
            "off or sampling.record_support = true."
        )
    return Finding(
        status="note" if kind in WEIGHT_BOUNDS else "warning",
        title=title,
        evidence=(
            f"At the median over {len(touched.values)} steps it changes {touched.median:.1%} of the units (limit "
            f"{limits.max_clipped_at_start:.0%}) while the policy is still the one before the batch. The cause: "
            f"{'; '.join(causes)}."
        ),
        advice=advice,
        steps=touched.span,
    )


def _why_mu_is_another(record: RunRecord) -> list[str]:
    """Name the settings by which samples come from another distribution than the policy ever was."""
    temperature, policy = record.setting("sampling.temperature", 1.0), record.setting("model.temperature", "auto")
    causes: list[str] = []
    if record.setting("sources.rollout", 1.0) > 0:
        if policy not in ("auto", temperature):
            causes.append(f"answers are drawn at temperature {temperature:g}, the policy has {policy:g}")
        cuts = {"top_p": 1, "top_k": 0, "min_p": 0}
        found = {name: record.setting(f"sampling.{name}", nothing) for name, nothing in cuts.items()}
        cutting = {name: value for name, value in found.items() if value != cuts[name]}
        # What was recorded of a cut undoes it, and with it that of a minimum length.
        is_recorded = bool(cutting) and record.setting("sampling.record_support", False)
        if not is_recorded:
            causes += [f"tokens are cut off by sampling.{name} = {value:g}" for name, value in cutting.items()]
        if (least := record.setting("sampling.min_new_tokens", 0)) and not is_recorded:
            causes.append(f"end tokens are kept back by sampling.min_new_tokens = {least:g}")
        if (penalty := record.setting("sampling.repetition_penalty", 1.0)) != 1:
            causes.append(f"tokens are weighted by sampling.repetition_penalty = {penalty:g}")
        if (sampler := record.setting("sampling.sampler", "local")) != "local":
            causes.append(f"{sampler} draws the answers")
    for name in ("log", "feedback"):
        if share := record.setting(f"sources.{name}", 0.0):
            causes.append(f"{share:.0%} of the answers are those of other policies ([{name}])")
    return causes


def stale_data(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the data is too far from the policy for ratios, or most of it stands at a clip's bound."""
    too_far = [
        (name, curve)
        for name in ("ess_token", "replay/ess_token", "log/ess_token")
        if (curve := curve_of(record, name, limits)) is not None and curve.median < limits.ess_token
    ]
    clipped = [curve for name in CLIP_FRACTIONS if (curve := curve_of(record, name, limits)) is not None]
    share = sum(curve.median for curve in clipped)
    if not too_far and share <= limits.max_clipped:
        return None
    parts = [f"{name} is {curve.median:.2f} (limit {limits.ess_token:g})" for name, curve in too_far]
    if share > limits.max_clipped:
        parts.append(f"{share:.0%} of the units stand at a clip's bound (limit {limits.max_clipped:.0%})")
    return Finding(
        status="warning",
        title="The data is too far from the policy for its ratios",
        evidence=f"Medians over the steps: {' and '.join(parts)}.",
        advice=(
            "Fewer training.num_epochs, a smaller sampling.lag or replay.max_age, or a lower learning rate; on a fixed "
            'log a recipe that needs no ratio near 1: objective.recipe = "topr".'
        ),
    )


def kl_blow_up(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the policy runs away from the reference, or from the policy that drew the batch."""
    without_gap = _without_sampler_gap(record)
    beyond = [
        (curve, _beyond(curve, limit), f"{name} reaches {max(curve.values):.2g} nats per token (limit {limit:g})")
        for name, limit in _divergence_limits(record, limits).items()
        if (curve := curve_of(without_gap, name, limits)) is not None
    ]
    beyond = [(curve, steps, words) for curve, steps, words in beyond if _is_frequent(steps, curve, limits)]
    if not beyond:
        return None
    steps = sorted({step for _, found, _ in beyond for step in found})
    is_bad = any(max(curve.values) > limits.kl_bad for curve, _, _ in beyond) or has_lost_reward(record, limits)
    words = " and ".join(words for _, _, words in beyond)
    return Finding(
        status="bad" if is_bad else "warning",
        title="The policy runs away: the divergence blows up",
        evidence=f"{words}; above the limit at {runs_of_steps(steps)}.{_rewards_in_words(record, limits)}",
        advice=(
            f"Lower optimizer.learning_rate (now {record.setting('optimizer.learning_rate', 'not known')}) by 3 to 10 "
            "times; then a clip (objective.clip) or a larger objective.beta."
        ),
        steps=(steps[0], steps[-1]),
    )


def entropy_collapse(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Find a policy that answers every prompt in one way and has not solved the task; cloned data may be as even."""
    entropy = curve_of(record, "entropy", limits)
    if entropy is None or is_cloning(record) or is_solved(record, limits):
        return None
    first, last = entropy.first, entropy.last
    if last.mean > limits.entropy_left * first.mean or last.mean > limits.entropy_low:
        return None
    return Finding(
        status="bad",
        title="The entropy has collapsed before the task was solved",
        evidence=(
            f"Entropy fell from {first.mean:.2g} nats per token ({at(first)}) to {last.mean:.2g} ({at(last)}); limits "
            f"{limits.entropy_left:.0%} of the start and {limits.entropy_low:g}.{_rewards_in_words(record, limits)}"
        ),
        advice=(
            "Give the objective something that keeps it open: a larger objective.beta with "
            'objective.divergence = "fkl", a higher upper end of objective.clip, a lower optimizer.learning_rate; and '
            "advantages with a baseline, so that what is merely frequent is not reinforced."
        ),
        steps=_from_below(entropy, limits.entropy_low),
    )


def entropy_blow_up(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the policy dissolves into noise."""
    entropy = curve_of(record, "entropy", limits)
    if entropy is None or entropy.last.mean <= max(limits.entropy_rise * entropy.first.mean, limits.entropy_low):
        return None
    first, last = entropy.first, entropy.last
    return Finding(
        status="bad" if has_lost_reward(record, limits) else "warning",
        title="The entropy keeps rising: the answers turn into noise",
        evidence=(
            f"Entropy rose from {first.mean:.2g} nats per token ({at(first)}) to {last.mean:.2g} ({at(last)}); limit "
            f"{limits.entropy_rise:g} times the start.{_rewards_in_words(record, limits)}"
        ),
        advice="Lower optimizer.learning_rate; look at w_max and at the rewards of the longest answers.",
        steps=last.steps,
    )


def inert_clip(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Every importance weight is 1, or no unit ever reaches the clip."""
    w_max, w_low = (curve_of(record, name, limits) for name in ("w_max", "w_p01"))
    if w_max is None or w_low is None or not _has_trust_region(record):
        return None
    widest = max(max(w_max.values) - 1, 1 - min(w_low.values))
    if widest <= limits.inert_weight:
        return _all_weights_are_one(record, widest, w_max.span)
    clipped = [curve for name in CLIP_FRACTIONS if (curve := curve_of(record, name, limits)) is not None]
    if not clipped or any(max(curve.values) > 0 for curve in clipped):
        return None
    return Finding(
        status="note",
        title="The clip never acted",
        evidence=(
            f"No unit reached a bound in {len(w_max.values)} steps; the weights stayed between {min(w_low.values):.3g} "
            f"(1 % quantile) and {max(w_max.values):.3g}."
        ),
        advice=(
            "It was only an insurance here. If the reward rises slowly, there is room for more training.num_epochs or "
            "a larger optimizer.learning_rate."
        ),
        steps=w_max.span,
    )


def _all_weights_are_one(record: RunRecord, widest: float, steps: Steps) -> Finding:
    updates = record.setting("training.num_epochs", 1) * record.setting("training.num_minibatches", 1)
    by_design = updates == 1 and not record.setting("sampling.lag", 0) and not record.setting("sources.replay", 0.0)
    why = (
        "One optimizer step a batch, at the policy that drew it, leaves w = 1"
        if by_design
        else "Several optimizer steps or old samples could have moved them, and did not"
    )
    return Finding(
        status="warning",
        title="The trust region is inert: every importance weight is 1",
        evidence=f"w stayed within {widest:.1g} of 1 at steps {in_words(steps)}. {why}: the clip never acts.",
        advice=(
            "Set training.num_minibatches or training.num_epochs above 1, or accept that this is plain on-policy "
            "policy gradient and drop the clip."
            if by_design
            else 'Raise optimizer.learning_rate, and check that training.log_mu is not "recomputed" after the update.'
        ),
        steps=steps,
    )


def _has_trust_region(record: RunRecord) -> bool:
    if record.setting("objective.loss", "policy-gradient") != "policy-gradient":
        return False
    clip = record.setting("objective.clip.kind", "none")
    return record.setting("objective.ratio", "recorded") == "recorded" and clip != "none"


def _without_sampler_gap(record: RunRecord) -> RunRecord:
    """With `kl_mu_pi` less `mismatch_k3`: what a wrong log_mu adds was there before any update; it has its finding."""
    rows = tuple(
        {**row, "kl_mu_pi": drift - gap}
        if is_number(drift := row.get("kl_mu_pi")) and is_number(gap := row.get("mismatch_k3"))
        else row
        for row in record.rows
    )
    return replace(record, rows=rows)


def _divergence_limits(record: RunRecord, limits: Thresholds) -> dict[str, float]:
    """Return a reference that follows the policy is near it; one that stays may be left far behind."""
    follows = record.setting("reference.kind", "iterative") == "iterative"
    return {"kl_pi_ref": limits.kl if follows else limits.kl_to_start, "kl_mu_pi": limits.kl}


def _beyond(curve: Curve, limit: float) -> list[int]:
    return [step for step, value in zip(curve.steps, curve.values, strict=True) if value > limit]


def _is_frequent(steps: Sequence[int], curve: Curve, limits: Thresholds) -> bool:
    """One wild step, such as the first after a warm-up of none, is no blow-up."""
    return len(steps) >= 2 and len(steps) >= limits.kl_share * len(curve.steps)


def _from_below(curve: Curve, limit: float) -> Steps:
    """From the first step below the limit to the end."""
    return next(step for step, value in zip(curve.steps, curve.values, strict=True) if value <= limit), curve.span[1]


def _rewards_in_words(record: RunRecord, limits: Thresholds) -> str:
    """Return a sentence, after a space, on how accuracy or reward went."""
    name, curve = outcome_curve(record, limits)
    if curve is None:
        return ""
    return f" {name} went from {curve.first.mean:.3g} ({at(curve.first)}) to {curve.last.mean:.3g} ({at(curve.last)})."

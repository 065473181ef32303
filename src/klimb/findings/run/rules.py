"""The rules in one table, and what they find in a run."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from klimb.findings.finding import STATUSES, Finding
from klimb.findings.run import outcome_rules, policy_rules, reward_rules
from klimb.findings.run.record import RunRecord
from klimb.findings.run.thresholds import THRESHOLDS, Thresholds


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        key: its name, a heading in docs/findings.md.
        look: what it sees in a run; None if there is nothing to say.
        heading: of docs/metrics.md, where its metrics are explained.
        metrics: those it reads.
        unless: keys of earlier rules that, once found, explain what this one would say.
    """

    key: str
    look: Callable[[RunRecord, Thresholds], Finding | None]
    heading: str
    metrics: tuple[str, ...]
    unless: tuple[str, ...] = ()


RULES: tuple[Rule, ...] = (
    Rule(
        "non-finite-steps",
        policy_rules.non_finite_steps,
        "the-optimizer-step",
        ("num_skipped_steps", "num_optimizer_steps"),
    ),
    Rule("sampler-gap", policy_rules.sampler_gap, "sampler-and-trainer", ("mismatch_k3", "mismatch_mean_abs")),
    Rule("kl-blow-up", policy_rules.kl_blow_up, "the-objective", ("kl_pi_ref", "kl_mu_pi")),
    Rule("entropy-blow-up", policy_rules.entropy_blow_up, "the-objective", ("entropy",)),
    Rule("length-hacking", reward_rules.length_hacking, "what-was-drawn", ("reward_mean", "length_mean", "accuracy")),
    Rule(
        "entropy-collapse",
        policy_rules.entropy_collapse,
        "the-objective",
        ("entropy", "accuracy"),
        unless=("kl-blow-up", "length-hacking"),
    ),
    Rule(
        "forgetting",
        outcome_rules.forgetting,
        "held-out-problems",
        ("evaluation_mean", "guard/perplexity", "guard/general_mean"),
    ),
    Rule("scoring-errors", reward_rules.scoring_errors, "what-was-drawn", ("num_errors", "num_samples")),
    Rule("reward-saturation", reward_rules.reward_saturation, "what-was-drawn", ("accuracy", "reward_std")),
    Rule(
        "zero-variance-waste",
        reward_rules.zero_variance_waste,
        "what-was-drawn",
        ("groups_dropped_fraction", "zero_advantage_fraction", "accuracy"),
        unless=("reward-saturation", "kl-blow-up", "entropy-collapse"),
    ),
    Rule(
        "too-little-data",
        outcome_rules.too_little_data,
        "held-out-problems",
        ("epoch", "num_groups", "accuracy", "evaluation_mean"),
        unless=("kl-blow-up", "entropy-blow-up", "entropy-collapse"),
    ),
    Rule(
        "inert-clip",
        policy_rules.inert_clip,
        "the-objective",
        ("w_max", "w_p01", *policy_rules.CLIPS),
        unless=("zero-variance-waste",),
    ),
    Rule(
        "stale-data",
        policy_rules.stale_data,
        "the-objective",
        ("ess_token", "replay/ess_token", "log/ess_token", *policy_rules.CLIPS),
        unless=("kl-blow-up", "sampler-gap"),
    ),
    Rule(
        "truncated-answers",
        reward_rules.truncated_answers,
        "what-was-drawn",
        ("truncated_fraction",),
        unless=("length-hacking", "kl-blow-up", "entropy-blow-up", "entropy-collapse", "reward-saturation"),
    ),
    Rule(
        "unstable",
        outcome_rules.unstable,
        "held-out-problems",
        ("evaluation_mean",),
        unless=("kl-blow-up", "forgetting"),
    ),
    Rule(
        "not-learning",
        outcome_rules.not_learning,
        "what-was-drawn",
        ("accuracy", "reward_mean", "evaluation_mean"),
        unless=(
            "kl-blow-up",
            "entropy-blow-up",
            "entropy-collapse",
            "zero-variance-waste",
            "reward-saturation",
            "too-little-data",
            "forgetting",
        ),
    ),
    Rule("cloning", outcome_rules.cloning, "the-objective", ("log_pi_mean",)),
    Rule("learned", outcome_rules.learned, "held-out-problems", ("evaluation_mean", "reward_mean")),
    Rule(
        "ratios-in-order",
        outcome_rules.ratios_in_order,
        "the-objective",
        ("ess_token", "kl_mu_pi", *policy_rules.CLIPS),
        unless=("sampler-gap", "kl-blow-up", "inert-clip", "stale-data"),
    ),
)
"""Asked in this order: causes before what follows from them."""


def find(record: RunRecord, thresholds: Thresholds = THRESHOLDS) -> tuple[Finding, ...]:
    """Return what the rules find in a run, the worst first; of equal severity in the order of the table."""
    found: dict[str, Finding] = {}
    for rule in RULES:
        if any(key in found for key in rule.unless):
            continue
        seen = rule.look(record, thresholds)
        if seen is not None:
            anchor = f"metrics.md#{rule.heading}"
            found[rule.key] = replace(seen, name=rule.key, metrics=rule.metrics, anchor=anchor)
    return tuple(sorted(found.values(), key=lambda finding: STATUSES.index(finding.status)))

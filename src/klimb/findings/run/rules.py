"""The rules in one table, and what they find in a run."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from klimb.findings.finding import STATUSES, Finding
from klimb.findings.metrics.of_losses import CLIP_FRACTIONS
from klimb.findings.run import conversation_rules, held_out_rules, outcome_rules, policy_rules, reward_rules
from klimb.findings.run.record import RunRecord
from klimb.findings.run.thresholds import THRESHOLDS, Thresholds

Look = Callable[[RunRecord, Thresholds], Finding | None]
"""What a rule sees in a run; None if there is nothing to say."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        key: its name, a heading in docs/findings.md.
        look: what it sees in a run.
        heading: of docs/metrics.md, where its metrics are explained.
        metrics: those it reads.
        unless: keys of earlier rules that, once found, explain what this one would say.
    """

    key: str
    look: Look
    heading: str
    metrics: tuple[str, ...]
    unless: tuple[str, ...] = ()


RULES: tuple[Rule, ...] = (
    Rule("did-not-finish", outcome_rules.did_not_finish, "what-was-drawn", ()),
    Rule("damaged-files", outcome_rules.damaged_files, "what-was-drawn", ()),
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
    Rule(
        "environment-dies",
        conversation_rules.environment_dies,
        "conversations",
        ("num_environment_errors", "num_samples"),
    ),
    Rule("held-out-log", held_out_rules.held_out_rows, "held-out-problems", ()),
    Rule("scoring-errors", reward_rules.scoring_errors, "what-was-drawn", ("num_errors", "num_samples")),
    Rule("calls-not-read", conversation_rules.calls_not_read, "conversations", ("unread_calls_fraction",)),
    Rule("tools-not-used", conversation_rules.tools_not_used, "conversations", ("tools_unused_fraction", "calls_mean")),
    Rule(
        "talk-is-paid",
        conversation_rules.talk_is_paid,
        "conversations",
        (
            "reward_turns_correlation",
            "correct_turns_correlation",
            "reward_drawn_correlation",
            "correct_drawn_correlation",
        ),
    ),
    Rule(
        "turn-limit",
        conversation_rules.turn_limit,
        "conversations",
        ("turn_limit_fraction", "num_turns_mean"),
        unless=("calls-not-read",),
    ),
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
        ("w_max", "w_p01", *CLIP_FRACTIONS),
        unless=("zero-variance-waste",),
    ),
    Rule(
        "clip-at-start",
        policy_rules.clip_at_start,
        "the-objective",
        ("clip_at_start_fraction", "w_p50"),
        unless=("sampler-gap",),
    ),
    Rule(
        "stale-data",
        policy_rules.stale_data,
        "the-objective",
        ("ess_token", "replay/ess_token", "log/ess_token", *CLIP_FRACTIONS),
        unless=("kl-blow-up", "sampler-gap", "clip-at-start"),
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
    Rule("prompts-differ", outcome_rules.prompts_differ, "held-out-problems", ("evaluation_mean",)),
    Rule("problems-left-out", outcome_rules.problems_left_out, "held-out-problems", ("evaluation_mean",)),
    Rule("cloning", outcome_rules.cloning, "the-objective", ("log_pi_mean",)),
    Rule("learned", outcome_rules.learned, "held-out-problems", ("evaluation_mean", "reward_mean")),
    Rule(
        "ratios-in-order",
        outcome_rules.ratios_in_order,
        "the-objective",
        ("ess_token", "kl_mu_pi", *CLIP_FRACTIONS),
        unless=("sampler-gap", "kl-blow-up", "inert-clip", "stale-data", "clip-at-start"),
    ),
)
"""Asked in this order: causes before what follows from them."""


NO_OWN_RULES: Mapping[str, Look] = MappingProxyType({})


def find(
    record: RunRecord, thresholds: Thresholds = THRESHOLDS, *, own: Mapping[str, Look] = NO_OWN_RULES
) -> tuple[Finding, ...]:
    """Return what the rules find in a run, the worst first; of equal severity in the order of the table.

    Args:
        record: of the run.
        thresholds: what the rules hold its numbers against.
        own: rules of the user's own by name, asked last. One that fails is a finding of its name that says so.
    """
    found = [*_of_rules(record, thresholds), *_of_own(own, record, thresholds)]
    return tuple(sorted(found, key=lambda finding: STATUSES.index(finding.status)))


def _of_rules(record: RunRecord, thresholds: Thresholds) -> Iterable[Finding]:
    found: dict[str, Finding] = {}
    for rule in RULES:
        if any(key in found for key in rule.unless):
            continue
        seen = rule.look(record, thresholds)
        if seen is not None:
            anchor = f"metrics.md#{rule.heading}"
            found[rule.key] = replace(seen, name=rule.key, metrics=rule.metrics, anchor=anchor)
    return found.values()


def _of_own(own: Mapping[str, Look], record: RunRecord, thresholds: Thresholds) -> Iterator[Finding]:
    for name, look in own.items():
        try:
            seen = _checked(look(record, thresholds))
        # Other people's code: whatever it raises, the other findings stand.
        except Exception as error:
            seen = Finding(
                status="unknown",
                title=f"{name} could not be asked",
                evidence=f"{type(error).__name__}: {error}",
                advice=f"Mend {name}, then klimb report asks it again.",
            )
        if seen is not None:
            yield replace(seen, name=seen.name or name)


def _checked(seen: object) -> Finding | None:
    """Return what a rule of the user's own found, if a report can show it."""
    if seen is None:
        return None
    if not isinstance(seen, Finding):
        raise TypeError(f"expected a klimb.findings.finding.Finding or None, got {type(seen).__name__}")
    if seen.status not in STATUSES:
        raise ValueError(f"the status of a finding is one of {', '.join(STATUSES)}, got {seen.status!r}")
    texts = (seen.name, seen.title, seen.evidence, seen.advice, seen.anchor, *seen.metrics)
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise TypeError(f"what a finding says is text, got {wrong!r}")
    return seen

"""From findings to one verdict. The rules are asked in order; the first that applies decides, and names its finding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from klimb.findings.audit.alignment import BROKEN, SHIFT, UNUSABLE
from klimb.findings.audit.evidence import USABLE, percent, short
from klimb.findings.audit.follow import FOLLOWS
from klimb.findings.audit.overlap import MASKED, SAME_MODEL, TOKEN_ESS
from klimb.findings.audit.provenance import NO_LOG_MU, TRUNCATED
from klimb.findings.audit.recipe_choice import RECIPES_FOR
from klimb.findings.audit.redundancy import EFFECTIVE_PROMPTS
from klimb.findings.audit.report import Example, Verdict, VerdictKind
from klimb.findings.audit.signal import DISTINCT, GROUPED, INTERVAL, REWARDED, ZERO_VARIANCE
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.audit.uses import recipes_of_ratings, says_nothing
from klimb.findings.finding import Finding

Findings = Mapping[str, Finding]


TITLES: Mapping[VerdictKind, str] = MappingProxyType(
    {
        "rl-with-correction": "Reinforcement learning with correction by the recorded log-probabilities",
        "ratio-free-rl": "Reinforcement learning without ratios",
        "kto-or-dro": "KTO or DRO: there are rewards, but no usable log-probabilities",
        "behaviour-cloning": "Behaviour cloning: nothing says which answer is better",
        "collect-more": "Collect more first",
    }
)


SELECTIONS: Mapping[str, str] = MappingProxyType(
    {
        NO_LOG_MU: f"log_mu_provenance in {USABLE}",
        TRUNCATED: "sampling.temperature > 0 and (support is not null or sampling.top_p = 1 and sampling.top_k = 0 "
        "and sampling.min_p = 0 and sampling.min_new_tokens = 0)",
    }
)
"""By finding: the condition on a store's samples that selects those without the fault."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a rule says, and the finding that made it say so."""

    kind: VerdictKind
    finding: Finding
    reason: str


def decide(findings: Findings, thresholds: Thresholds) -> Decision:
    """Find the first rule that applies.

    They are: no usable rewards, ratings that say nothing, too little signal, no usable log_mu, unusable ratios, none.
    Rewards come first, since without them no loss but cloning has anything to use. Too little signal comes before the
    log-probabilities, since no loss repairs it. Log-probabilities come before overlap, which is computed from them.
    """
    rules: tuple[Callable[[Findings, Thresholds], Decision | None], ...] = (
        _no_usable_rewards,
        _says_nothing,
        _too_little_signal,
        _no_usable_log_mu,
        _unusable_ratios,
    )
    for rule in rules:
        decision = rule(findings, thresholds)
        if decision is not None:
            return decision
    return _healthy(findings)


def verdict_of(decision: Decision, findings: Findings, thresholds: Thresholds, examples: Sequence[Example]) -> Verdict:
    """Return the verdict of a decision, with recipes that fit the data and what to type."""
    recipes = recipes_for(decision.kind, findings)
    interval = findings[INTERVAL]
    return Verdict(
        kind=decision.kind,
        title=TITLES[decision.kind],
        reason=decision.reason,
        decided_by=decision.finding.name,
        next_action=next_action(decision, findings, thresholds, recipes[0]),
        recipes=recipes,
        examples=tuple(examples),
        interval_half_width=interval.number,
        interval_note=(
            interval.title
            if interval.number is None
            else f"{interval.evidence} {interval.title}; the hoped gain is {thresholds.hoped_gain:g}"
        ),
    )


def recipes_for(kind: VerdictKind, findings: Findings) -> tuple[str, ...]:
    """Names of objectives that can use the data, the recommended one first.

    They are those of `RECIPES_FOR`, which docs/audit.md shows.
    """
    return recipes_of_ratings(findings) if kind == "kto-or-dro" else RECIPES_FOR[kind]


def next_action(decision: Decision, findings: Findings, thresholds: Thresholds, recipe: str) -> str:
    """Return what to type next, with the run file that belongs to the report."""
    train = f"klimb train RUN.toml (the run file of this audit, recipe {recipe})"
    if decision.kind == "collect-more":
        return f"{_what_to_collect(decision, findings)}; then audit again. To draw answers while training: {train}"
    if decision.kind == "rl-with-correction" and findings[TOKEN_ESS].number is None:
        return f"klimb audit DATA --model MODEL to measure the overlap, then {train}"
    selected = SELECTIONS.get(decision.finding.name)
    if selected is not None and (decision.finding.number or 0.0) < 1:
        return f'{train}; or audit the samples without this fault alone: klimb audit DATA --where "{selected}"'
    return train


def _what_to_collect(decision: Decision, findings: Findings) -> str:
    if decision.finding.name == ZERO_VARIANCE:
        return "Draw answers to prompts that are neither solved nor hopeless, or more answers to each"
    if decision.finding.name == EFFECTIVE_PROMPTS and findings[INTERVAL].advice:
        return f"{decision.finding.advice}; {findings[INTERVAL].advice}"
    return decision.finding.advice


def _no_usable_rewards(findings: Findings, thresholds: Thresholds) -> Decision | None:
    rewarded = findings[REWARDED]
    if rewarded.number == 0:
        reason = f"No sample has a reward ({rewarded.evidence}), so nothing says which answer is better."
        return Decision(kind="behaviour-cloning", finding=rewarded, reason=reason)
    distinct = findings[DISTINCT]
    if distinct.number == 1:
        reason = (
            f"All rewards are the same ({distinct.evidence}; at least 2 different ones are needed), so nothing says "
            "which answer is better. If this value means failure, do not clone these answers: collect others."
        )
        return Decision(kind="behaviour-cloning", finding=distinct, reason=reason)
    return None


def _says_nothing(findings: Findings, thresholds: Thresholds) -> Decision | None:
    if not says_nothing(findings):
        return None
    finding = findings[FOLLOWS]
    reason = f"{finding.evidence} (threshold: {finding.threshold}): {finding.title}."
    return Decision(kind="collect-more", finding=finding, reason=reason[:1].upper() + reason[1:])


def _too_little_signal(findings: Findings, thresholds: Thresholds) -> Decision | None:
    """Group decide only where most rewarded samples are in groups of two or more."""
    if _above(findings, GROUPED, 0.5) and findings[ZERO_VARIANCE].status == "bad":
        reason = "have answers that all got the same reward, which teach nothing"
        return _collect(findings[ZERO_VARIANCE], reason)
    if _above(findings, INTERVAL, thresholds.hoped_gain):
        reason = "is the 95 % interval of the mean reward: wider than the gain to be shown"
        return _collect(findings[INTERVAL], reason)
    if _below(findings, EFFECTIVE_PROMPTS, thresholds.min_effective_prompts):
        return _collect(findings[EFFECTIVE_PROMPTS], "effective prompts are too few to say anything of others")
    return None


def _collect(finding: Finding, what: str) -> Decision:
    reason = f"{finding.evidence} {what} (threshold: {finding.threshold})."
    return Decision(kind="collect-more", finding=finding, reason=reason)


def _no_usable_log_mu(findings: Findings, thresholds: Thresholds) -> Decision | None:
    unusable = findings[UNUSABLE]
    if _above(findings, UNUSABLE, thresholds.max_unusable_log_mu):
        parts = [findings[name] for name in (NO_LOG_MU, BROKEN, SHIFT)]
        finding = max(parts, key=lambda part: part.number or 0.0)
        rest = "" if (unusable.number or 0.0) >= 1 else " The others have."
        reason = (
            f"{unusable.evidence} of the samples have no usable log-probabilities (threshold: {unusable.threshold}), "
            f"mostly: {finding.name}, {finding.evidence}, {finding.title}.{rest}"
        )
        return Decision(kind="kto-or-dro", finding=finding, reason=reason)
    if _above(findings, SAME_MODEL, thresholds.same_model_k3_bad):
        same = findings[SAME_MODEL]
        reason = (
            f"The logging model does not give the recorded log-probabilities: {same.name} is {same.evidence} "
            f"(threshold: {same.threshold}), so they are those of another model or of other settings."
        )
        return Decision(kind="kto-or-dro", finding=same, reason=reason)
    return None


def _unusable_ratios(findings: Findings, thresholds: Thresholds) -> Decision | None:
    tests = (
        (
            TRUNCATED,
            _above(findings, TRUNCATED, thresholds.max_truncated_sampling),
            "the ratios lack part of the support",
        ),
        (TOKEN_ESS, _below(findings, TOKEN_ESS, thresholds.token_ess_bad), "a few tokens would decide every update"),
        (MASKED, _above(findings, MASKED, thresholds.max_masked), "the policy is far from the one that made the data"),
    )
    for name, applies, consequence in tests:
        if applies:
            finding = findings[name]
            reason = (
                f"Log-probabilities are there, but {consequence}: {name}, {finding.evidence} "
                f"(threshold: {finding.threshold})."
            )
            return Decision(kind="ratio-free-rl", finding=finding, reason=reason)
    return None


def _healthy(findings: Findings) -> Decision:
    overlap, truncated = findings[TOKEN_ESS], findings[TRUNCATED]
    caveat = "" if truncated.number is not None else " Whether tokens were cut off when drawing is not recorded."
    if overlap.number is None:
        usable = findings[UNUSABLE]
        reason = (
            f"Rewards differ and {percent(1 - (usable.number or 0.0))} of the samples have usable log-probabilities. "
            f"The overlap with the policy to train was not measured ({overlap.title}), so this holds if the policy "
            f"is near the one that made the data.{caveat}"
        )
        return Decision(kind="rl-with-correction", finding=usable, reason=reason)
    interval = findings[INTERVAL]
    width = (
        f", how well the mean reward is known cannot be said ({interval.title})"
        if interval.number is None
        else f", the mean reward is known to ± {short(interval.number)}"
    )
    reason = (
        f"Log-probabilities are right and the policy is near the one that made the data: {overlap.name} is "
        f"{overlap.evidence} (threshold: {overlap.threshold}){width}.{caveat}"
    )
    return Decision(kind="rl-with-correction", finding=overlap, reason=reason)


def _above(findings: Findings, name: str, limit: float) -> bool:
    number = findings[name].number if name in findings else None
    return number is not None and number > limit


def _below(findings: Findings, name: str, limit: float) -> bool:
    number = findings[name].number if name in findings else None
    return number is not None and number < limit

"""What the data can be used for, one answer a use: yes, partly or no, with the numbers and the way out.

Pure rules over findings and counts, so that terminal, page and JSON say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from klimb.findings.audit.alignment import UNUSABLE
from klimb.findings.audit.evidence import counted, percent
from klimb.findings.audit.follow import CONTRADICTIONS, FOLLOWS
from klimb.findings.audit.overlap import MASKED, SAME_MODEL, TOKEN_ESS
from klimb.findings.audit.provenance import NO_LOG_MU, TRUNCATED
from klimb.findings.audit.raters import AGREEMENT, CONSTANT
from klimb.findings.audit.recipe_choice import (
    CLONING_THE_GOOD,
    GRADED,
    GROUPED_PAIRS,
    RATIO_FREE,
    RECIPES_FOR,
    SINGLE,
    WITH_RATIOS,
    WITHOUT_LOG_MU,
)
from klimb.findings.audit.redundancy import EFFECTIVE_PROMPTS
from klimb.findings.audit.report import Answer, Collecting, Contents, Use
from klimb.findings.audit.signal import DISTINCT, GROUPED, INTERVAL, ZERO_VARIANCE
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding

Findings = Mapping[str, Finding]


CLONE = "clone the good answers"


RATINGS = "learn from the ratings"


RATIOS = "RL with ratios"


NO_RATIOS = "RL without ratios"


ESTIMATE = "say how good another model is"


RECORD = (
    "Record them: `logprobs: true` at vLLM, SGLang or OpenAI, at vLLM also `return_token_ids: true`; then klimb import"
)


TRAIN = "klimb train RUN.toml"


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """An answer with its reason and the way out; empty where nothing is amiss."""

    answer: Answer = "yes"
    reason: str = ""
    way_out: str = ""


def list_uses(
    findings: Findings, contents: Contents, collecting: Collecting, thresholds: Thresholds
) -> tuple[Use, ...]:
    """Return an answer for each use, in the order in which a product's owner would try them."""
    ratings = judge_ratings(findings, contents, collecting, thresholds)
    log_probs = judge_log_probs(findings, contents, thresholds)
    return (
        _cloning(findings, contents, thresholds),
        _learning(findings, contents, ratings),
        _with_ratios(findings, contents, ratings, log_probs, thresholds),
        _without_ratios(findings, contents, ratings, log_probs, thresholds),
        _estimating(contents, ratings, log_probs),
    )


def says_nothing(findings: Findings) -> bool:
    """Tell whether shuffled ratings would look the same as these."""
    return FOLLOWS in findings and findings[FOLLOWS].status == "bad"


def judge_ratings(findings: Findings, contents: Contents, collecting: Collecting, thresholds: Thresholds) -> _Judged:
    """Whether the ratings can teach: there, different, of these answers, enough, and not at odds with each other."""
    rated = counted(contents.num_rated, "rated answer")
    if not contents.num_rated:
        return _Judged(
            answer="no",
            reason=f"none of {counted(contents.num_samples, 'answer')} is rated",
            way_out="Import ratings (klimb import RATINGS --as feedback), or have a few hundred answers rated",
        )
    if _number(findings, DISTINCT) == 1:
        return _Judged(
            answer="no",
            reason=f"all {rated} have the same rating" if contents.num_rated > 1 else "one answer is rated",
            way_out="Have good and bad answers rated: without both nothing says which is better",
        )
    if says_nothing(findings):
        return _Judged(
            answer="no",
            reason=f"the {contents.num_rated:,} ratings look like shuffled ones (p {_number(findings, FOLLOWS):.2g}): "
            "nothing that can be seen of an answer goes with its rating",
            way_out=f"{findings[FOLLOWS].advice} If they are: klimb audit DATA --trust-ratings",
        )
    if is_too_little(findings, thresholds):
        return _Judged(answer="partly", reason=f"{rated} are too few yet", way_out=collecting.in_words)
    doubts = [doubt for name in (AGREEMENT, CONSTANT, CONTRADICTIONS) if (doubt := _doubt(findings, name))]
    if doubts:
        return _Judged(answer="partly", reason="; ".join(doubts))
    return _Judged()


def is_too_little(findings: Findings, thresholds: Thresholds) -> bool:
    """Tell whether the ratings are too few for the hoped gain, or of too few different questions."""
    half, effective = _number(findings, INTERVAL), _number(findings, EFFECTIVE_PROMPTS)
    is_wide = half is not None and half > thresholds.hoped_gain
    return is_wide or (effective is not None and effective < thresholds.min_effective_prompts)


def judge_log_probs(findings: Findings, contents: Contents, thresholds: Thresholds) -> _Judged:
    """Whether log-probabilities are there for most answers, are those of the model, and were drawn in full."""
    absent, unusable = _number(findings, NO_LOG_MU) or 0.0, _number(findings, UNUSABLE) or 0.0
    if absent >= 1:
        return _Judged(answer="no", reason="no log-probabilities were recorded", way_out=RECORD)
    if unusable >= 1:
        return _Judged(
            answer="no", reason=f"no log-probabilities are usable: {findings[UNUSABLE].title}", way_out=RECORD
        )
    if _above(findings, SAME_MODEL, thresholds.same_model_k3_bad):
        reason = f"the logging model does not give the recorded log-probabilities (k3 {findings[SAME_MODEL].evidence})"
        return _Judged(answer="no", reason=reason, way_out="Name the model that drew the answers, and its temperature")
    cut = _number(findings, TRUNCATED) or 0.0
    if cut >= 1:
        reason = "all were drawn with top-p, top-k or the like, so tokens are missing that the model could say"
        way_out = "From now on record which tokens could be drawn (docs/exactness.md), or draw with top_p = 1"
        return _Judged(answer="no", reason=reason, way_out=way_out)
    if unusable > thresholds.max_unusable_log_mu or cut > thresholds.max_truncated_sampling:
        share = max(unusable, cut)
        return _Judged(
            answer="partly",
            reason=f"{percent(share)} have no usable log-probabilities, or were drawn with a cut-off",
            way_out="Audit the part that has: klimb audit DATA --where \"log_mu_provenance = 'sampler'\"",
        )
    return _Judged()


def _cloning(findings: Findings, contents: Contents, thresholds: Thresholds) -> Use:
    good, rated = contents.num_good, contents.num_rated
    recipe, everything = CLONING_THE_GOOD
    if not rated:
        judged = _Judged(
            answer="partly",
            reason=f"{counted(contents.num_samples, 'answer')}, and nothing says which are good: clone them only if "
            "you would send each of them again",
        )
        return _use(CLONE, judged, contents.num_samples, (everything,), _train(everything))
    if not good:
        judged = _Judged(answer="no", reason=f"none of {counted(rated, 'rated answer')} is good")
        return _use(CLONE, judged, 0, (recipe,), "Collect answers of a better model, or written by people")
    step = _train(recipe) + ("" if contents.good_from == 0.5 else f" advantages.min_reward={contents.good_from:g}")
    if says_nothing(findings):
        judged = _Judged(answer="partly", reason=f"{counted(good, 'answer')} rated good, but these ratings say nothing")
    elif good < thresholds.min_cloned:
        judged = _Judged(
            answer="partly",
            reason=f"{counted(good, 'good answer')} of {rated:,} rated: they teach a form, not much more; "
            f"{thresholds.min_cloned - good:g} more would do",
        )
    else:
        judged = _Judged(reason=f"{counted(good, 'answer')} of {rated:,} rated are good")
    return _use(CLONE, judged, good, CLONING_THE_GOOD, step)


def _learning(findings: Findings, contents: Contents, ratings: _Judged) -> Use:
    recipes = recipes_of_ratings(findings)
    share = percent(contents.num_good / contents.num_rated) if contents.num_rated else ""
    reason = ratings.reason or f"{counted(contents.num_rated, 'rated answer')}, {share} of them good"
    return _use(
        RATINGS,
        _Judged(answer=ratings.answer, reason=reason, way_out=ratings.way_out),
        contents.num_rated if ratings.answer != "no" else 0,
        recipes,
        _train(recipes[0]),
    )


def recipes_of_ratings(findings: Findings) -> tuple[str, ...]:
    """Return the recipes for ratings without log-probabilities: by their values, and whether they come in groups."""
    if _above(findings, DISTINCT, 2):
        return RECIPES_FOR[GRADED]
    return RECIPES_FOR[GROUPED_PAIRS if _above(findings, GROUPED, 0.5) else SINGLE]


def _with_ratios(
    findings: Findings, contents: Contents, ratings: _Judged, log_probs: _Judged, thresholds: Thresholds
) -> Use:
    recipes = RECIPES_FOR[WITH_RATIOS]
    usable = round((1 - (_number(findings, UNUSABLE) or 0.0)) * contents.num_samples)
    overlap = _number(findings, TOKEN_ESS)
    if log_probs.answer == "no":
        judged, usable = log_probs, 0
    elif ratings.answer == "no":
        judged, usable = _Judged(answer="no", reason=ratings.reason, way_out=ratings.way_out), 0
    elif overlap is None:
        judged = _Judged(
            answer="partly",
            reason=f"{counted(usable, 'answer')} with log-probabilities; how near your model is was not measured",
            way_out="klimb audit DATA --model MODEL measures it",
        )
    elif overlap < thresholds.token_ess_bad or _above(findings, MASKED, thresholds.max_masked):
        judged = _Judged(
            answer="no",
            reason=f"your model is far from the one that answered (effective share {percent(overlap)})",
            way_out="Learn without ratios, or draw fresh answers",
        )
        usable = 0
    else:
        judged = log_probs if log_probs.answer != "yes" else ratings
        reason = judged.reason or f"{counted(usable, 'answer')} with log-probabilities, and your model is near"
        judged = _Judged(answer=judged.answer, reason=reason, way_out=judged.way_out)
    return _use(RATIOS, judged, usable, recipes, _train(recipes[0]))


def _without_ratios(
    findings: Findings, contents: Contents, ratings: _Judged, log_probs: _Judged, thresholds: Thresholds
) -> Use:
    recipes = WITHOUT_LOG_MU if log_probs.answer == "no" else RECIPES_FOR[RATIO_FREE]
    equal = _number(findings, ZERO_VARIANCE)
    is_grouped = _above(findings, GROUPED, 0.5)
    judged = ratings
    if ratings.answer == "yes" and is_grouped and findings[ZERO_VARIANCE].status == "bad":
        judged = _Judged(
            answer="partly",
            reason=f"{percent(equal or 0.0)} of the groups have equal ratings, which teach nothing",
            way_out="Draw more answers to each question, or take harder and easier questions",
        )
    elif ratings.answer == "yes":
        how = "answers to one question are compared" if is_grouped else "answers are compared with the mean of a batch"
        judged = _Judged(reason=f"{counted(contents.num_rated, 'rated answer')}; {how}")
    return _use(NO_RATIOS, judged, contents.num_rated if judged.answer != "no" else 0, recipes, _train(recipes[0]))


def _estimating(contents: Contents, ratings: _Judged, log_probs: _Judged) -> Use:
    command = "klimb estimate DATA --model MODEL"
    worst = next((each for answer in ("no", "partly") for each in (log_probs, ratings) if each.answer == answer), None)
    if worst is None:
        judged = _Judged(
            reason=f"what others would get can be estimated from {counted(contents.num_rated, 'rated answer')}"
        )
    else:
        judged = worst
    return _use(ESTIMATE, judged, contents.num_rated if judged.answer != "no" else 0, (), command)


def _use(name: str, judged: _Judged, num_samples: int, recipes: tuple[str, ...], command: str) -> Use:
    """Return the use; where there is a way out of what is amiss, that is the next step."""
    return Use(
        name=name,
        answer=judged.answer,
        reason=judged.reason,
        num_samples=num_samples,
        recipes=recipes,
        next_step=judged.way_out or command,
    )


def _train(recipe: str) -> str:
    return f"{TRAIN} --set objective.recipe={recipe}"


def _doubt(findings: Findings, name: str) -> str:
    found = findings.get(name)
    return "" if found is None or found.status not in ("bad", "warning") else f"{name}: {found.evidence}"


def _number(findings: Findings, name: str) -> float | None:
    return findings[name].number if name in findings else None


def _above(findings: Findings, name: str, limit: float) -> bool:
    number = _number(findings, name)
    return number is not None and number > limit

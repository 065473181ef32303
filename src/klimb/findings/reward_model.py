"""What a reward model is worth on answers that it was not trained on, beside the length of an answer and a constant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.findings.audit.evidence import ends, numbered, short, unknown
from klimb.findings.audit.report import Block, Figure
from klimb.findings.finding import Finding, Status
from klimb.findings.statistics import Interval, mean_interval
from klimb.findings.statistics.discrimination import area_under_roc
from klimb.findings.thresholds import OWN, limit

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What the numbers are held against."""

    num_bins: float = limit(10, "bins of a reliability curve, equally full", OWN)
    min_calibration: float = limit(50, "held-out thumbs from which on calibration is judged", OWN)


DEFAULTS = Thresholds()


@dataclass(frozen=True, kw_only=True)
class HeldOutPairs:
    """Pairs of answers to held-out prompts.

    Attributes:
        margins: score of the better answer minus that of the other, by the model.
        length_margins: the same by a head on the length alone.
        units: what was held out whole, of each.
        kinds: of each, `preference` or `ratings`.
        sources: of the samples.
    """

    margins: tuple[float, ...]
    length_margins: tuple[float, ...]
    units: tuple[str, ...]
    kinds: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HeldOutRatings:
    """Ratings of answers to held-out prompts.

    Attributes:
        values: of each answer.
        scores: by the model.
        predicted: the rating that the model expects.
        length_scores: by a head on the length alone.
        length_predicted: the rating that it expects.
        constant: the mean rating that was trained on.
        units: what was held out whole, of each.
        sources: of the samples.
        thumbs: the two values that there are; None for graded ratings.
    """

    values: tuple[float, ...]
    scores: tuple[float, ...]
    predicted: tuple[float, ...]
    length_scores: tuple[float, ...]
    length_predicted: tuple[float, ...]
    constant: float
    units: tuple[str, ...]
    sources: tuple[str, ...]
    thumbs: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class RewardModelReport:
    """What was found.

    Attributes:
        verdict: whether the model says more than the length of an answer.
        blocks: the verdict's evidence, by kind of judgement.
    """

    verdict: Finding
    blocks: tuple[Block, ...]


VERDICT = "better than length"


def judge_reward_model(
    pairs: HeldOutPairs, ratings: HeldOutRatings, *, unit: str, thresholds: Thresholds = DEFAULTS
) -> RewardModelReport:
    """Return what held-out judgements say of the model.

    The verdict is by the kind of judgement that more units have held out, whatever the numbers say; by pairs where both
    have as many, since a pair has one prompt.
    """
    blocks: list[Block] = []
    found: Finding | None = None
    verdict = unknown(VERDICT, "no pair and no two different ratings are held out: collect more judgements")
    if ratings.values:
        block, found = _of_ratings(ratings, unit, thresholds)
        blocks.append(block)
        verdict = found or verdict
    if pairs.margins:
        block, of_pairs = _of_pairs(pairs, unit)
        tells_by_ratings = bool(blocks) and found is not None and len(set(ratings.units)) > len(set(pairs.units))
        verdict = verdict if tells_by_ratings else of_pairs
        blocks.insert(0, block)
    return RewardModelReport(verdict=verdict, blocks=tuple(blocks))


def _of_pairs(pairs: HeldOutPairs, unit: str) -> tuple[Block, Finding]:
    order, by_length = in_order(pairs.margins), in_order(pairs.length_margins)
    units = numbered(pairs.units)
    whole = mean_interval(order, units, unit=unit, bounds=(0.0, 1.0))
    gain = mean_interval(order - by_length, units, unit=unit, bounds=(-1.0, 1.0))
    verdict = _against(VERDICT, gain, "of pairs in order, beyond the length's")
    findings = [
        against_chance("pairs in order", whole, 0.5, "a coin has 0.5"),
        noted("the same by length alone", mean_interval(by_length, units, unit=unit, bounds=(0.0, 1.0))),
        verdict,
    ]
    for name, labels in (("of kind", pairs.kinds), ("of source", pairs.sources)):
        for label in sorted(set(labels)) if len(set(labels)) > 1 else ():
            rows = np.array([each == label for each in labels])
            part = mean_interval(order[rows], units[rows], unit=unit, bounds=(0.0, 1.0))
            findings.append(against_chance(f"pairs in order, {name} {label}", part, 0.5, "a coin has 0.5"))
    title = f"Held-out pairs: {len(pairs.margins):,}, in {whole.counted_units}"
    return Block(name="pairs", title=title, findings=tuple(findings)), verdict


def in_order(margins: Sequence[float]) -> Numbers:
    """Return 1 for each pair whose better answer has the higher score, 1/2 for a tie, else 0."""
    return 0.5 + 0.5 * np.sign(np.asarray(margins, dtype=np.float64))


def _of_ratings(ratings: HeldOutRatings, unit: str, thresholds: Thresholds) -> tuple[Block, Finding | None]:
    values = np.array(ratings.values)
    squared = _squared_errors(ratings, ratings.predicted)
    units = numbered(ratings.units)
    mean_squared = mean_interval(squared, units, unit=unit)
    gain = _squared_errors(ratings, [ratings.constant] * len(values)) - squared
    findings = [
        noted("mean squared error" if ratings.thumbs is None else "Brier score", mean_squared),
        _against("better than a constant", mean_interval(gain, units, unit=unit), "less squared error than the mean's"),
        _against(
            "error below the length's",
            mean_interval(_squared_errors(ratings, ratings.length_predicted) - squared, units, unit=unit),
            "less squared error than by length alone",
        ),
    ]
    middle = float(values.mean()) if ratings.thumbs is None else ratings.thumbs[0]
    positive = [value > middle for value in ratings.values]
    verdict: Finding | None = None
    if len(set(positive)) > 1:
        area = area_under_roc(ratings.scores, positive, ratings.units, unit=unit)
        length = area_under_roc(ratings.length_scores, positive, ratings.units, unit=unit)
        difference = area_under_roc(ratings.scores, positive, ratings.units, unit=unit, than=ratings.length_scores)
        verdict = _against(VERDICT, difference, "of AUC, beyond the length's")
        findings += [
            against_chance("AUC", area, 0.5, "a coin has 0.5"),
            noted("AUC by length alone", length),
            verdict,
            *_areas_by_source(ratings, positive, unit),
        ]
    figures: tuple[Figure, ...] = ()
    if ratings.thumbs is not None and len(values) >= thresholds.min_calibration:
        calibration, figure = _calibration(ratings, thresholds)
        findings.append(calibration)
        figures = (figure,)
    elif ratings.thumbs is not None:
        least = f"{len(values)} held-out thumbs, and {thresholds.min_calibration:g} are the least"
        findings.append(unknown("calibration", least))
    noun = "thumbs" if ratings.thumbs is not None else "graded ratings"
    title = f"Held-out {noun}: {len(values):,}, in {mean_squared.counted_units}"
    return Block(name="ratings", title=title, findings=tuple(findings), figures=figures), verdict


def _areas_by_source(ratings: HeldOutRatings, positive: Sequence[bool], unit: str) -> list[Finding]:
    found: list[Finding] = []
    for source in sorted(set(ratings.sources)) if len(set(ratings.sources)) > 1 else ():
        rows = [row for row, each in enumerate(ratings.sources) if each == source]
        area = area_under_roc(
            [ratings.scores[row] for row in rows],
            [positive[row] for row in rows],
            [ratings.units[row] for row in rows],
            unit=unit,
        )
        found.append(against_chance(f"AUC, of source {source}", area, 0.5, "a coin has 0.5"))
    return found


def _squared_errors(ratings: HeldOutRatings, predicted: Sequence[float]) -> Numbers:
    """Return (predicted − rating)², in units of the thumbs' range where ratings are thumbs."""
    low, high = ratings.thumbs or (0.0, 1.0)
    return ((np.asarray(predicted, dtype=np.float64) - np.array(ratings.values)) / ((high - low) or 1.0)) ** 2


NUM_DRAWS = 500


def _calibration(ratings: HeldOutRatings, thresholds: Thresholds) -> tuple[Finding, Figure]:
    """Return the expected calibration error against what a calibrated model of these forecasts would show."""
    low, high = ratings.thumbs or (0.0, 1.0)
    span = (high - low) or 1.0
    forecasts = (np.array(ratings.predicted) - low) / span
    outcomes = (np.array(ratings.values) - low) / span
    bins = np.array_split(np.argsort(forecasts, kind="stable"), int(thresholds.num_bins))
    error = calibration_error(forecasts, outcomes, bins)
    drawn = np.random.default_rng(0).random((NUM_DRAWS, len(forecasts))) < forecasts
    usual = float(np.quantile([calibration_error(forecasts, each.astype(np.float64), bins) for each in drawn], 0.95))
    figure = Figure(
        title="Reliability of held-out thumbs",
        kind="points",
        x=tuple(float(forecasts[rows].mean()) for rows in bins),
        y=tuple(float(outcomes[rows].mean()) for rows in bins),
        x_label="chance of a good rating, by the model",
        y_label="share of good ratings",
        note=f"On the diagonal the chances are right. Each point is a {len(bins)}th of the ratings.",
    )
    is_usual = error <= usual
    return (
        Finding(
            name="calibration",
            status="good" if is_usual else "warning",
            evidence=f"ECE {short(error)}",
            title="" if is_usual else "its chances are not shares; its order may still be right",
            threshold=f"at most {short(usual)}, as 95 % of calibrated models of these forecasts have",
            source="simulated: outcomes drawn from the forecasts",
            number=error,
            limit=usual,
        ),
        figure,
    )


def calibration_error(forecasts: Numbers, outcomes: Numbers, bins: Sequence[NDArray[np.int_]]) -> float:
    """Return ECE = Σ over bins of (share of ratings)·|mean forecast − mean outcome|.

    Source: Naeini, Cooper and Hauskrecht 2015.
    """
    gaps = [abs(float(forecasts[rows].mean() - outcomes[rows].mean())) * len(rows) for rows in bins]
    return math.fsum(gaps) / len(forecasts)


def noted(name: str, found: Interval) -> Finding:
    """Return a number that is held against nothing."""
    return Finding(name=name, status="note", evidence=_evidence(found), title="", number=found.value)


def against_chance(name: str, found: Interval, least: float, why: str) -> Finding:
    """Hold a share against what chance has, by its whole interval."""
    status: Status = "unknown"
    title = f"cannot be told: {found.reason}"
    if found.is_known:
        status = "good" if found.low > least else "bad" if found.high < least else "warning"
        title = {"bad": "worse than chance", "warning": "not distinguishable from chance"}.get(status, "")
    return Finding(
        name=name,
        status=status,
        evidence=_evidence(found),
        title=title,
        threshold=f"more than {least:g} by the whole interval",
        source=why,
        number=found.value,
    )


def _against(name: str, gain: Interval, words: str) -> Finding:
    """Say whether a difference to a baseline is above 0, by its whole interval."""
    advice = "collect more judgements, of answers of equal length among them; until then do not train on it"
    if not gain.is_known:
        return Finding(
            name=name,
            status="unknown",
            evidence=f"{short(gain.value)} {words}" if math.isfinite(gain.value) else "unknown",
            title=f"cannot be told: {gain.reason}",
            advice=advice,
        )
    status: Status = "good" if gain.is_positive else "bad" if gain.is_negative else "warning"
    title = "worse than the baseline" if gain.is_negative else "no better than the baseline, as far as this can tell"
    return Finding(
        name=name,
        status=status,
        evidence=f"{gain.value:+.3g} {words} ({ends(gain)})",
        title="" if status == "good" else title,
        advice="" if status == "good" else advice,
        threshold="above 0 by the whole interval",
        source="the baseline is fitted in the same way",
        number=gain.value,
    )


def _evidence(found: Interval) -> str:
    return f"{short(found.value)} ({ends(found)})" if math.isfinite(found.value) else "unknown"

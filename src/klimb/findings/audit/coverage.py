"""Does the data hold what the policy would do? High weights' overlap cannot say so: it sees logged answers only."""

from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import (
    at_least,
    both_at_least,
    counted,
    ends,
    normalised,
    percent,
    prompt_text,
    prompt_units,
    short,
    unknown,
)
from klimb.findings.audit.report import Block, Figure
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.statistics import mean_interval

COVERED = "the policy's own answers look like logged ones"


UNSEEN = "evaluation prompts not in the data"


MOST_NEIGHBOURS = 64
"""Logged answers of a prompt that a fresh one is compared with."""


MOST_CHARACTERS = 1000
"""Of each answer that are compared."""


_NUM_BINS = 10


def coverage_block(
    samples: Sequence[Sample],
    fresh: Sequence[Sample] | None,
    evaluation_prompts: Sequence[str],
    thresholds: Thresholds,
) -> Block:
    """Prompts and answers outside the data."""
    title = "Whether the data holds what the policy would do"
    unseen = _unseen(samples, evaluation_prompts)
    if not fresh:
        missing = unknown(COVERED, "needs answers drawn from the policy to train")
        return Block(name="coverage", title=title, findings=(unseen, missing))
    nearest = nearest_similarity(samples, fresh)
    known = [value for value in nearest if value is not None]
    covered = (
        _covered(fresh, nearest, thresholds)
        if known
        else unknown(COVERED, "no fresh answer is to a prompt of the data")
    )
    figures = (_picture(known),) if known else ()
    return Block(name="coverage", title=title, findings=(unseen, covered), figures=figures)


def _covered(fresh: Sequence[Sample], nearest: Sequence[float | None], thresholds: Thresholds) -> Finding:
    """Return the share of fresh answers that look like logged ones; what few of them lack by chance is no warning."""
    compared = [(sample, value) for sample, value in zip(fresh, nearest, strict=True) if value is not None]
    alike = np.array([value >= thresholds.min_similarity for _, value in compared], dtype=np.float64)
    interval = mean_interval(alike, prompt_units([sample for sample, _ in compared]), unit="prompt")
    least = thresholds.min_coverage
    is_told = interval.value >= least or interval.high < least
    doubt = "" if is_told else f" below the limit by no more than chance: {ends(interval)};"
    return Finding(
        name=COVERED,
        evidence=f"{percent(interval.value)} of {counted(len(alike), 'answer')}",
        status=at_least(interval.value if interval.value >= least else interval.high, good=least, bad=least / 2)
        if is_told
        else "unknown",
        title=f"their nearest logged answer to the same prompt has a similarity of at least "
        f"{thresholds.min_similarity:g};{doubt} {len(fresh) - len(compared):,} answers were to prompts not in the data",
        threshold=both_at_least(percent(least), percent(least / 2)),
        source="coverage idea: arXiv 2512.11150; own choice of the number",
        number=interval.value,
    )


def nearest_similarity(samples: Sequence[Sample], fresh: Sequence[Sample]) -> list[float | None]:
    """Similarity in [0, 1] of each fresh answer to its nearest logged one; None if its prompt is not logged.

    1 for the same text, else 2·M/T: M matching characters of T in both (Ratcliff and Obershelp), over the first 1000
    characters and at most 64 different logged answers of the prompt.
    """
    logged: dict[str, dict[str, None]] = defaultdict(dict)
    wanted = {normalised(prompt_text(sample)) for sample in fresh}
    for sample in samples:
        prompt = normalised(prompt_text(sample))
        if prompt in wanted:
            logged[prompt][normalised(_answer(sample))] = None
    return [_nearest(normalised(sample.response), logged.get(normalised(prompt_text(sample)))) for sample in fresh]


def _answer(sample: Sample) -> str:
    """Return the response; of a conversation its first turn, which is what a fresh answer can be compared with."""
    return sample.drawn_turns[0][0].text if sample.turns else sample.response


def _nearest(answer: str, logged: dict[str, None] | None) -> float | None:
    if logged is None:
        return None
    if answer in logged:
        return 1.0
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(answer[:MOST_CHARACTERS])
    best = 0.0
    for other in list(logged)[:MOST_NEIGHBOURS]:
        matcher.set_seq1(other[:MOST_CHARACTERS])
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best:
            best = max(best, matcher.ratio())
    return best


def _unseen(samples: Sequence[Sample], evaluation_prompts: Sequence[str]) -> Finding:
    if not evaluation_prompts:
        return unknown(UNSEEN, "no evaluation prompts were given")
    seen = {normalised(prompt_text(sample)) for sample in samples}
    seen |= {normalised(message["content"]) for sample in samples for message in sample.prompt}
    share = sum(normalised(prompt) not in seen for prompt in evaluation_prompts) / len(evaluation_prompts)
    return Finding(
        name=UNSEEN,
        evidence=f"{percent(share)} of {counted(len(evaluation_prompts), 'prompt')}",
        status="good",
        title="right for held-out prompts; whether they improve is then a question of transfer",
        number=share,
    )


def _picture(values: Sequence[float]) -> Figure:
    counts = [0.0] * _NUM_BINS
    for value in values:
        counts[min(int(value * _NUM_BINS), _NUM_BINS - 1)] += 1
    return Figure(
        title="Similarity of the policy's answers to their nearest logged one",
        kind="histogram",
        x=tuple(edge / _NUM_BINS for edge in range(_NUM_BINS + 1)),
        y=tuple(counts),
        x_label=f"similarity (mean {short(sum(values) / len(values))})",
        y_label="answers",
        note="answers on the left are ones that the data says nothing about",
    )

"""What the ratings follow: the answers, or chance, the hour and the language; and whether they contradict one another.

A log whose ratings were shuffled looks healthy in every count. What tells it from a good one is that nothing of an
answer goes with its rating.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import SERVED_BY, Sample
from klimb.findings.audit.evidence import (
    QUIRK_ALPHA,
    counted,
    ends,
    is_rated,
    normalised,
    numbered,
    percent,
    prompt_text,
    prompt_units,
    short,
    unknown,
    without_copies,
)
from klimb.findings.audit.report import Block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.audit.wording import describe_answers, language_of
from klimb.findings.finding import Finding
from klimb.findings.statistics import Interval, Tested, dependence_test, difference_of_groups, share_ends

FOLLOWS = "ratings follow the answers"


CONTRADICTIONS = "equal answers rated differently"


BY_LANGUAGE = "ratings by language"


BY_HOUR = "ratings by hour"


BY_PROGRAMS = ("verifiers", "verl")
"""Kinds of imported rows whose rewards a program gave."""


MOST_COMPARED = 2000
"""Rated answers whose wording is compared with their ratings, spread evenly over the data."""


def is_rated_by_program(sample: Sample) -> bool:
    """Tell whether the reward came of a task or an environment: what reads the answer's content.

    What `klimb serve` answered has rewards of people alone.
    """
    if SERVED_BY in sample.metadata:
        return False
    return sample.source in ("rollout", "replay") or sample.metadata.get("imported_as") in BY_PROGRAMS


def follow_block(samples: Sequence[Sample], thresholds: Thresholds, *, agreement: Interval | None = None) -> Block:
    """Whether ratings go with the answers, contradict one another, or go with language and hour.

    People who agree about answers rate the answers, whatever can be seen of them: `agreement` is asked first.
    """
    rated = without_copies([sample for sample in samples if is_rated(sample)])
    return Block(
        name="follow",
        title="What the ratings follow",
        findings=(
            _follows(rated, thresholds, agreement),
            _contradictions(rated, thresholds),
            _by_language(rated, thresholds),
            _by_hour(rated, thresholds),
        ),
        notes=(
            "the first check sees words, length, form and fit to the question, not whether an answer is true; rewards "
            "that a task's program gave are not asked",
        ),
    )


def _follows(rated: Sequence[Sample], thresholds: Thresholds, agreement: Interval | None) -> Finding:
    given = [sample for sample in rated if not is_rated_by_program(sample)]
    if not given:
        return unknown(FOLLOWS, "a program rated these answers, or nobody did")
    if agreement is not None and agreement.is_positive:
        return Finding(
            name=FOLLOWS,
            evidence=f"raters agree: α {short(agreement.value)} ({ends(agreement)})",
            status="good",
            title="several people who saw the same answer rate it alike, so its rating is of it",
            number=0.0,
        )
    if thresholds.max_shuffled_chance >= 1:
        return unknown(FOLLOWS, "not asked: the ratings are taken for what they are said to be")
    step = math.ceil(len(given) / MOST_COMPARED)
    compared = given[::step]
    if len(compared) < thresholds.min_ratings_to_tell:
        least = f"{thresholds.min_ratings_to_tell:g} are the least to tell"
        return unknown(FOLLOWS, f"{counted(len(compared), 'rating')}, and {least}")
    wording = describe_answers(compared)
    found = dependence_test(wording.columns, np.array([sample.reward for sample in compared], dtype=np.float64))
    if found is None:
        return unknown(FOLLOWS, "all ratings, or all answers, are equal")
    follows = found.p_value < thresholds.max_shuffled_chance
    strongest = f"most with {wording.names[found.strongest]} ({found.correlation:+.2f})"
    return Finding(
        name=FOLLOWS,
        evidence=f"p {short(found.p_value)} over {counted(len(compared), 'rated answer')}; {strongest}",
        status="good" if follows else "bad",
        title=(
            "words, length or form of an answer go with its rating"
            if follows
            else "nothing that can be seen of an answer goes with its rating: shuffled ratings would look the same"
        ),
        threshold=f"p below {thresholds.max_shuffled_chance:g}",
        source="permutation test of 999 shuffles; own choice of the number",
        advice="" if follows else "Read 20 answers with their ratings: are they the ratings of these answers?",
        number=found.p_value,
    )


def _contradictions(rated: Sequence[Sample], thresholds: Thresholds) -> Finding:
    """Of answers that were given to one question and rated several times: how many got different ratings."""
    ratings: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in rated:
        ratings[normalised(prompt_text(sample)), normalised(sample.response)].append(sample.reward or 0.0)
    repeated = [values for values in ratings.values() if len(values) > 1]
    if not repeated:
        return unknown(CONTRADICTIONS, "no answer was rated twice")
    num_different = sum(len(set(values)) > 1 for values in repeated)
    share = num_different / len(repeated)
    limit = thresholds.max_contradictions
    least, _ = share_ends(share, len(repeated))
    is_many = least > limit
    return Finding(
        name=CONTRADICTIONS,
        evidence=f"{num_different:,} of {counted(len(repeated), 'answer')} that were rated more than once",
        status="warning" if is_many else "good",
        title="the same answer to the same question is good and bad: decide which, or leave these out"
        if is_many
        else "",
        threshold=f"at most {percent(limit)}, by the lower end of the share's 95 % interval",
        source="own choice",
        number=share,
    )


def _by_language(rated: Sequence[Sample], thresholds: Thresholds) -> Finding:
    languages = [language_of(sample.response) for sample in rated]
    counts = Counter(language for language in languages if language != "not told")
    if len(counts) < 2:
        return unknown(BY_LANGUAGE, "the answers are in one language, as far as can be told")
    main = counts.most_common(1)[0][0]
    others = [row for row, language in enumerate(languages) if language not in (main, "not told")]
    found = _difference(rated, others, [row for row, each in enumerate(languages) if each == main])
    what = f"{', '.join(language for language, _ in counts.most_common() if language != main)} less {main}"
    return _gap(BY_LANGUAGE, what, [found], rated, thresholds, title="answers in one language are rated higher")


def _by_hour(rated: Sequence[Sample], thresholds: Thresholds) -> Finding:
    """Compare each third of the day with the rest; the days are the units, since those of one day hang together."""
    dated = [sample for sample in rated if sample.created_at > 0]
    times = [datetime.fromtimestamp(sample.created_at, UTC) for sample in dated]
    if len({time.hour // 8 for time in times}) < 2 or all((time.hour, time.minute) == (0, 0) for time in times):
        return unknown(BY_HOUR, "the ratings have no times of different thirds of a day")
    days = numbered([f"{time:%Y-%m-%d}" for time in times])
    found: list[Tested | None] = []
    for third in range(3):
        inside = [row for row, time in enumerate(times) if time.hour // 8 == third]
        rest = [row for row, time in enumerate(times) if time.hour // 8 != third]
        found.append(_difference(dated, inside, rest, units=days, unit="day") if inside and rest else None)
    return _gap(BY_HOUR, "a third of the day (UTC) less the rest", found, rated, thresholds, title="the hour decides")


def _difference(
    samples: Sequence[Sample],
    first: Sequence[int],
    second: Sequence[int],
    *,
    units: NDArray[np.int64] | None = None,
    unit: str = "prompt",
) -> Tested:
    """Return the mean rating of the first rows less that of the second."""
    rewards = np.array([sample.reward for sample in samples], dtype=np.float64)
    units = prompt_units(samples) if units is None else units
    return difference_of_groups(rewards[second], units[second], rewards[first], units[first], unit=unit)


def _gap(
    name: str,
    what: str,
    tests: Sequence[Tested | None],
    rated: Sequence[Sample],
    thresholds: Thresholds,
    *,
    title: str,
) -> Finding:
    """Return the finding of the test with the smallest p, each of which has its part of the level."""
    known = [test for test in tests if test is not None and math.isfinite(test.p_value)]
    if not known:
        reason = next((test.interval.reason for test in tests if test is not None), "too few ratings")
        return unknown(name, f"no test: {reason}")
    found = min(known, key=lambda test: test.p_value)
    rewards = [sample.reward or 0.0 for sample in rated]
    limit = thresholds.max_rating_gap * (max(rewards) - min(rewards))
    level = QUIRK_ALPHA / len(tests)
    is_claimed = abs(found.interval.value) > limit and found.p_value < level
    return Finding(
        name=name,
        evidence=f"{found.interval.value:+.3g} ({ends(found.interval)}), p {short(found.p_value)}: {what}",
        status="warning" if is_claimed else "good",
        title=f"{title}: compare within it, or what is learnt is that" if is_claimed else "",
        threshold=f"at most ±{limit:g}, or p from {short(level)}",
        source="own choice; the level is a part of 5 % for all checks of what ratings follow",
        number=found.interval.value,
    )

"""What there is, counted for the person whose data it is: answers, ratings, where they came from, what stayed out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import is_rated, normalised, prompt_text
from klimb.findings.audit.report import Contents, Counts, Example

NUM_SHOWN = 3
"""Answers that are shown of the best, and of the worst."""


GOOD_SHARE = 0.5
"""A rating of 0 to 1 from which on an answer is good; the recipe `bc-filtered` takes those."""


def count_contents(
    samples: Sequence[Sample], *, files: Mapping[str, int] | None = None, left_out: Mapping[str, int] | None = None
) -> Contents:
    """Return the data in numbers.

    Args:
        samples: all that were read.
        files: samples and ratings by the file that brought them.
        left_out: rows that were never imported, by reason.
    """
    rated = [sample for sample in samples if is_rated(sample)]
    good_from = good_rating(rated)
    ordered = sorted(rated, key=lambda sample: sample.reward or 0.0)
    are_different = bool(ordered) and ordered[0].reward != ordered[-1].reward
    return Contents(
        num_samples=len(samples),
        num_prompts=len({normalised(prompt_text(sample)) for sample in samples}),
        num_rated=len(rated),
        num_good=0 if good_from is None else sum((sample.reward or 0.0) >= good_from for sample in rated),
        good_from=good_from,
        sources=_ordered(Counter(sample.source for sample in samples)),
        kinds=_ordered(Counter(kind for sample in samples if (kind := sample.metadata.get("imported_as", "")))),
        files=_ordered(files or {}),
        left_out=_ordered(left_out or {}),
        best=_of_different_prompts(reversed(ordered), note="one of the best rated"),
        worst=_of_different_prompts(ordered, note="one of the worst rated") if are_different else (),
    )


def good_rating(rated: Sequence[Sample]) -> float | None:
    """Return the rating from which on an answer counts as good; None without ratings."""
    if not rated:
        return None
    rewards = [sample.reward or 0.0 for sample in rated]
    low, high = min(rewards), max(rewards)
    return GOOD_SHARE if low >= 0 and high <= 1 else low / 2 + high / 2


def _ordered(counts: Mapping[str, int]) -> Counts:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _question(sample: Sample) -> str:
    """Return what the user said last: behind it, an agent's prompt has results of tools."""
    asked = [message for message in sample.prompt if message["role"] == "user"] or sample.prompt
    return asked[-1]["content"] if asked else ""


def _of_different_prompts(samples: Iterable[Sample], *, note: str) -> tuple[Example, ...]:
    chosen: dict[str, Sample] = {}
    for sample in samples:
        if sample.response.strip():
            chosen.setdefault(normalised(prompt_text(sample)), sample)
        if len(chosen) == NUM_SHOWN:
            break
    return tuple(
        Example(
            sample_id=sample.sample_id,
            prompt=_question(sample),
            response=sample.response,
            reward=sample.reward,
            note=note,
        )
        for sample in chosen.values()
    )

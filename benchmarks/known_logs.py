"""Logs of known truth, and what an audit's first screen says of each: `python -m benchmarks.known_logs`.

- enough: 300 questions with one or two answers each; a good answer is right and mostly says how it helps, a bad one is
  wrong or evades; people rate what they see and err in one of ten cases.
- few: 12 such answers.
- shuffled: the first, with the ratings dealt out to the answers anew.

The first screen is right if it says `yes` to learning from the ratings, how many more questions, and `no`.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from klimb.experience.samples import Message, Sample
from klimb.findings.audit import AuditReport, audit
from klimb.findings.audit.uses import RATINGS

NUM_QUESTIONS = 300


NUM_FEW = 12


ERROR = 0.1
"""Share of ratings that are the other way round."""


SHARE_GOOD = 0.55


_TOPICS = (
    "a refund",
    "my invoice",
    "the delivery",
    "my password",
    "the warranty",
    "a broken screen",
    "the manual",
    "an upgrade",
    "my subscription",
    "the app",
    "a missing part",
    "the address",
    "a discount",
    "the charger",
    "two parcels",
    "the size",
)


_HELPFUL = (
    "I have checked it for you",
    "Here is how it works",
    "You can do it in three steps",
    "I have just sent you the link",
)


_EVASIVE = (
    "Please contact somebody else",
    "I am not able to help with that",
    "That is not possible",
    "Try again some day",
)


_FILLERS = ("Thank you for asking.", "Good morning.", "As for your question,", "Well,", "Let me see.", "")


def enough(seed: int) -> list[Sample]:
    """Return the informative log."""
    return _log(np.random.default_rng(seed), NUM_QUESTIONS)


def few(seed: int) -> list[Sample]:
    """Return the first rows of such a log."""
    return _log(np.random.default_rng(seed), NUM_FEW)[:NUM_FEW]


def shuffled(seed: int) -> list[Sample]:
    """Return the informative log whose ratings belong to other answers."""
    samples = enough(seed)
    order = np.random.default_rng((seed, 1)).permutation(len(samples))
    return [replace(sample, reward=samples[int(row)].reward) for sample, row in zip(samples, order, strict=True)]


def _log(generator: np.random.Generator, num_questions: int) -> list[Sample]:
    samples: list[Sample] = []
    for question in range(num_questions):
        topic, days = _TOPICS[int(generator.integers(len(_TOPICS)))], int(generator.integers(2, 30))
        for _ in range(int(generator.integers(1, 3))):
            samples.append(_sample(generator, len(samples), question=question, topic=topic, days=days))
    return samples


def _sample(generator: np.random.Generator, number: int, *, question: int, topic: str, days: int) -> Sample:
    is_good = generator.random() < SHARE_GOOD
    # One of five answers has the other kind's phrase: a polite wrong answer, a gruff right one.
    phrases = _HELPFUL if is_good != (generator.random() < 0.2) else _EVASIVE
    said = days if is_good else days + int(generator.integers(1, 9))
    phrase, filler = phrases[int(generator.integers(len(phrases)))], _FILLERS[int(generator.integers(len(_FILLERS)))]
    asked = f"Question {question}: the page says {days} days for {topic}. How long?"
    return Sample(
        sample_id=f"s{number:04d}",
        group_id=f"q{question}",
        prompt=(Message(role="user", content=asked),),
        prompt_ids=(),
        response=f"{filler} {phrase}: {topic} takes {said} days.".strip(),
        response_ids=(),
        finish_reason="stop",
        reward=float(is_good != (generator.random() < ERROR)),
        source="log",
        created_at=1_750_000_000.0 + 3600.0 * number,
        metadata={"imported_as": "kto", "user": f"u{int(generator.integers(40))}"},
    )


def answer_of(report: AuditReport) -> str:
    """Return what the first screen says of learning from the ratings: yes, no, or how many more."""
    use = next(use for use in report.uses if use.name == RATINGS)
    is_more = use.answer == "partly" and report.collecting.num_more is not None and not report.collecting.is_enough
    return "more" if is_more else use.answer


EXPECTED = {"enough": "yes", "few": "more", "shuffled": "no"}


_MAKERS: dict[str, Callable[[int], Sequence[Sample]]] = {"enough": enough, "few": few, "shuffled": shuffled}


def count_answers(name: str, seeds: Sequence[int]) -> Counter[str]:
    """Return how often the first screen says what of logs of this kind."""
    return Counter(answer_of(audit(_MAKERS[name](seed))) for seed in seeds)


def main() -> None:
    """Print a line for each kind of log."""
    parser = argparse.ArgumentParser(description="What an audit's first screen says of logs of known truth.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    for name, expected in EXPECTED.items():
        counts = count_answers(name, seeds)
        said = ", ".join(f"{answer} {number}" for answer, number in counts.most_common())
        print(f"{name:<9} right {counts[expected]:>3} of {len(seeds)}   (expected {expected}; said: {said})")


if __name__ == "__main__":
    main()

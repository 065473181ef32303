"""Answers of equal length that people like for their letters, and what they said of them."""

import random

from klimb.experience import Sample
from klimb.experience.feedback import Feedback


def answer(number: int, *, reward: float | None, response: str, prompt: int | None = None, **fields) -> Sample:
    asked = number if prompt is None else prompt
    return Sample(
        sample_id=f"s{number}",
        group_id=f"g{asked}",
        prompt=({"role": "user", "content": f"question {asked}"},),
        prompt_ids=(),
        response=response,
        response_ids=(),
        finish_reason="unknown",
        reward=reward,
        source="feedback",
        **fields,
    )


def letters(draw: random.Random, *, is_liked: bool, length: int = 12) -> str:
    """Mostly z where it is liked, else mostly a."""
    own, other = ("z", "a") if is_liked else ("a", "z")
    return "".join(own if draw.random() < 0.85 else other for _ in range(length))


def thumbed(number: int, *, seed: int = 0, each: int = 2, shuffled: bool = False) -> list[Sample]:
    """Return samples of `number` prompts with a thumb each, half of them up; by letter, or at random."""
    draw = random.Random(seed)
    kinds = [place % 2 == 0 for place in range(number * each)]
    thumbs = draw.sample(kinds, len(kinds)) if shuffled else kinds
    return [
        answer(
            place,
            prompt=place // each,
            reward=float(thumb),
            response=letters(draw, is_liked=kind),
            metadata={"user": f"u{place // each}"},
        )
        for place, (kind, thumb) in enumerate(zip(kinds, thumbs, strict=True))
    ]


def preferences(number: int, *, seed: int = 0) -> tuple[list[Sample], list[Feedback]]:
    """Return unrated pairs of answers to one prompt, and which of them was preferred."""
    samples = thumbed(number, seed=seed)
    unrated = [
        answer(place, prompt=place // 2, reward=None, response=sample.response) for place, sample in enumerate(samples)
    ]
    return unrated, [
        Feedback(
            feedback_id=f"f{place}", sample_id=f"s{2 * place}", value=None, over=f"s{2 * place + 1}", user=f"u{place}"
        )
        for place in range(number)
    ]

"""What people said of answers, as a reward model learns it: pairs of answers to one prompt, and ratings.

Some prompts are held out, with all prompts of the same users.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from klimb.experience.feedback import Feedback, is_by_machine
from klimb.experience.held_out import hold_out
from klimb.experience.samples import Message, Sample
from klimb.findings.statistics.means import two_values
from klimb.training.sources.feedback import cap_raters

PairKind = Literal["preference", "ratings"]
"""A person preferred one answer to the other; or both were rated, one higher."""


@dataclass(frozen=True, kw_only=True)
class JudgedText:
    """An answer to a prompt.

    Attributes:
        sample_id: of the sample.
        messages: the conversation, with the answer as its last message.
        unit: what was drawn whole with it when some were held out.
        is_held_out: not trained on.
        source: of the sample.
    """

    sample_id: str
    messages: tuple[Message, ...]
    unit: str
    is_held_out: bool
    source: str

    @property
    def num_characters(self) -> int:
        """Length of the answer."""
        return len(self.messages[-1]["content"])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to one prompt, by their numbers."""

    better: int
    worse: int
    kind: PairKind


@dataclass(frozen=True, kw_only=True)
class Rating:
    """An answer's rating, the mean over the people who gave one."""

    text: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """All that a store says of answers that it holds.

    Attributes:
        texts: each answer once.
        pairs: of answers to one prompt.
        ratings: of single answers.
        thumbs: the two values that ratings have; None where they are graded, or there are none.
        unit: the noun for what was held out whole.
        left_out: reason -> how many samples or judgements.
    """

    texts: tuple[JudgedText, ...]
    pairs: tuple[Pair, ...]
    ratings: tuple[Rating, ...]
    thumbs: tuple[float, float] | None
    unit: str
    left_out: Mapping[str, int]

    def pairs_of(self, *, held_out: bool) -> list[Pair]:
        """Return the pairs that are held out, or those to train on."""
        return [pair for pair in self.pairs if self.texts[pair.better].is_held_out == held_out]

    def ratings_of(self, *, held_out: bool) -> list[Rating]:
        """Return the ratings that are held out, or those to train on."""
        return [rating for rating in self.ratings if self.texts[rating.text].is_held_out == held_out]

    def without(self, numbers: Collection[int], reason: str) -> Judgements:
        """Return the same without these texts and what was said of them; the others are numbered anew."""
        place = {old: new for new, old in enumerate(n for n in range(len(self.texts)) if n not in numbers)}
        return replace(
            self,
            texts=tuple(self.texts[old] for old in place),
            pairs=tuple(
                replace(pair, better=place[pair.better], worse=place[pair.worse])
                for pair in self.pairs
                if pair.better in place and pair.worse in place
            ),
            ratings=tuple(replace(each, text=place[each.text]) for each in self.ratings if each.text in place),
            left_out={**self.left_out, **({reason: len(numbers)} if numbers else {})},
        )


NO_TEXT = "samples without a prompt or an answer as text"
TURNS = "conversations of several turns in one sample, whose rating is of the whole"
OTHER_PROMPT = "preferences between answers to different prompts"
MISSING = "preferences of which an answer is not here"
BEYOND_CAP = "preferences beyond what one person may decide"
SAME_TEXT = "pairs of one and the same answer"


def read_judgements(
    samples: Iterable[Sample],
    feedback: Sequence[Feedback],
    *,
    fraction: float,
    seed: int,
    max_pairs: int,
    max_rater_fraction: float = 1.0,
) -> Judgements:
    """Return what the samples' rewards and the preferences among the feedback say.

    A sample's reward is its rating: people's mean where they rated it, else what it came with. What a reward model or
    a judge said is left out.

    Args:
        samples: as a store reads them, with people's ratings.
        feedback: of the same store.
        fraction: of the prompts that is held out.
        seed: of the split and of the choice of pairs.
        max_pairs: that the ratings of one prompt make at most.
        max_rater_fraction: one named person's share of the preferences that count; 1 counts all.

    Raises:
        ValueError: there is nothing to learn from, or nothing that could be held out.
    """
    left_out: Counter[str] = Counter()
    kept = [sample for sample in samples if not _leave_out(sample, left_out)]
    stated, num_beyond = cap_raters([row for row in feedback if row.over], max_fraction=max_rater_fraction)
    left_out[BEYOND_CAP] += num_beyond
    preferences = _latest_preferences(stated, {sample.sample_id: sample for sample in kept}, left_out)
    named = {sample_id for pair in preferences for sample_id in pair}
    judged = [sample for sample in kept if sample.reward is not None or sample.sample_id in named]
    if not judged:
        raise ValueError(
            "no sample is rated and none is preferred to another, so there is nothing to learn from; rate some, or "
            f"widen --where ({_in_words(left_out)})"
        )
    split = hold_out(
        {_prompt_of(sample): _prompt_of(sample) for sample in judged},
        _users(judged, feedback),
        fraction=fraction,
        seed=seed,
    )
    aside = set(split.group_ids)
    texts = tuple(
        JudgedText(
            sample_id=sample.sample_id,
            messages=(*sample.prompt, Message(role="assistant", content=sample.response)),
            unit=split.unit_of[_prompt_of(sample)],
            is_held_out=_prompt_of(sample) in aside,
            source=sample.source,
        )
        for sample in judged
    )
    place = {text.sample_id: number for number, text in enumerate(texts)}
    ratings = tuple(
        Rating(text=number, value=sample.reward) for number, sample in enumerate(judged) if sample.reward is not None
    )
    preferred = [Pair(better=place[better], worse=place[worse], kind="preference") for better, worse in preferences]
    found = [*preferred, *_pairs_of_ratings(judged, ratings, max_pairs=max_pairs, seed=seed)]
    pairs = tuple(pair for pair in found if texts[pair.better].messages != texts[pair.worse].messages)
    left_out[SAME_TEXT] += len(found) - len(pairs)
    return Judgements(
        texts=texts,
        pairs=pairs,
        ratings=ratings,
        thumbs=two_values(np.array([rating.value for rating in ratings])) if ratings else None,
        unit=split.unit,
        left_out={reason: number for reason, number in left_out.items() if number},
    )


def _leave_out(sample: Sample, left_out: Counter[str]) -> bool:
    reason = ""
    if not sample.prompt or not sample.response.strip():
        reason = NO_TEXT
    elif len(sample.conversation) > 1:
        reason = TURNS
    if reason:
        left_out[reason] += 1
    return bool(reason)


def _prompt_of(sample: Sample) -> str:
    return json.dumps(sample.prompt, sort_keys=True)


def _latest_preferences(
    feedback: Iterable[Feedback], samples: Mapping[str, Sample], left_out: Counter[str]
) -> list[tuple[str, str]]:
    """Return (preferred, other) of each person's latest word on two answers."""
    latest: dict[tuple[str, frozenset[str]], Feedback] = {}
    for row in feedback:
        if not row.over or is_by_machine(row.name):
            continue
        key = (row.user, frozenset((row.sample_id, row.over)))
        if key not in latest or latest[key].created_at <= row.created_at:
            latest[key] = row
    found: list[tuple[str, str]] = []
    for row in latest.values():
        better, worse = samples.get(row.sample_id), samples.get(row.over)
        if better is None or worse is None:
            left_out[MISSING] += 1
        elif _prompt_of(better) != _prompt_of(worse):
            left_out[OTHER_PROMPT] += 1
        else:
            found.append((row.sample_id, row.over))
    return found


def _users(judged: Sequence[Sample], feedback: Iterable[Feedback]) -> dict[str, set[str]]:
    """Return prompt -> those who asked it or said something of its answers."""
    prompts = {sample.sample_id: _prompt_of(sample) for sample in judged}
    users: dict[str, set[str]] = defaultdict(set)
    for sample in judged:
        users[_prompt_of(sample)] |= {user for user in [sample.metadata.get("user", "")] if user}
    for row in feedback:
        if row.user and row.sample_id in prompts and not is_by_machine(row.name):
            users[prompts[row.sample_id]].add(row.user)
    return users


def _pairs_of_ratings(
    judged: Sequence[Sample], ratings: Sequence[Rating], *, max_pairs: int, seed: int
) -> Iterable[Pair]:
    by_prompt: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        by_prompt[_prompt_of(judged[rating.text])].append(rating)
    for prompt, rated in by_prompt.items():
        apart = [pair for pair in combinations(rated, 2) if pair[0].value != pair[1].value]
        if len(apart) > max_pairs:
            apart = random.Random(f"{seed} {prompt}").sample(apart, max_pairs)
        for first, second in apart:
            better, worse = (first, second) if first.value > second.value else (second, first)
            yield Pair(better=better.text, worse=worse.text, kind="ratings")


def _in_words(left_out: Counter[str]) -> str:
    return "; ".join(f"left out: {number} {reason}" for reason, number in left_out.items()) or "there are none"

"""What reasoning-gym generates, with its own scoring. A file of its own: reasoning-gym is slow to import."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import DATASETS, create_dataset

from klimb.tasks.answers import EXTRACTIONS, shown
from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, chat, did_you_mean
from klimb.tasks.reasoning_gym import ReasoningGymSettings
from klimb.tasks.truncation import WrongIfCut

SEED_BITS = 30
"""reasoning-gym generates entry i from seed + i, so seeds 1 and 2 would share nearly all entries. Ours is therefore
spread over this many bits, and the held-out seeds lie beyond: those of the two sides never meet."""


DRAWS_PER_PROBLEM = 4
"""Entries looked at per problem asked for, at most; repeated questions use them up."""


OWN_PARAMETERS = ("seed", "size")


Entry = dict[str, Any]
"""What reasoning-gym calls an entry: question, answer, and the metadata its scoring needs."""


@dataclass(frozen=True, eq=False)
class ReasoningGymScore:
    """Scores with the dataset's own `score_answer`, on the part of the response that `extract` names.

    The entries travel with it, since some datasets generate other ones in another process.
    """

    dataset: str
    parameters: Mapping[str, Any]
    extract: str
    entries: Mapping[str, Entry]

    @cached_property
    def scoring(self) -> ProceduralDataset:
        """The dataset whose `score_answer` is used; its own entries are not."""
        return create_dataset(self.dataset, **self.parameters, seed=0, size=1)

    def prepare(self) -> None:
        """Create the dataset."""
        _ = self.scoring

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the dataset's score, from 0 to 1; correct means 1."""
        answer = EXTRACTIONS[self.extract](response.text)
        try:
            value = float(self.scoring.score_answer(answer, self.entries[problem.problem_id]))
        except ValueError as error:  # several datasets let int(answer) raise: the answer has not the form asked for
            return Score(reward=0.0, correct=False, parts={"score": 0.0}, reason=f"unreadable answer: {error}")
        reason = f"{self.dataset} scores {shown(answer)!r} with {value:g}, expected {shown(problem.answer)!r}"
        return Score(reward=value, correct=value == 1, parts={"score": value}, reason=reason)


def reasoning_gym_problems(settings: ReasoningGymSettings) -> ProblemSet:
    """Return the problems that the settings ask for, scored by their dataset."""
    dataset, parameters = settings.dataset, settings.parameters
    check_parameters(dataset, parameters)
    first_seed = random.Random(settings.seed).getrandbits(SEED_BITS)
    second_seed = first_seed + (1 << SEED_BITS)
    held_out = draw(dataset, parameters, second_seed, settings.num_held_out, "num_held_out", frozenset())
    held_out_questions = frozenset(entry["question"] for entry in held_out.values())
    train = draw(dataset, parameters, first_seed, settings.num_train, "num_train", held_out_questions)
    return ProblemSet(
        name=f"reasoning-gym:{dataset}",
        train=as_problems(train, settings),
        held_out=as_problems(held_out, settings),
        score=WrongIfCut(ReasoningGymScore(dataset, dict(parameters), settings.extract, {**held_out, **train})),
    )


def as_problems(entries: Mapping[str, Entry], settings: ReasoningGymSettings) -> tuple[Problem, ...]:
    """Return the problems that ask for the entries."""
    return tuple(
        Problem(
            problem_id=problem_id,
            messages=chat(entry["question"], system_prompt=settings.system_prompt, template=settings.template),
            answer="" if entry["answer"] is None else str(entry["answer"]),
        )
        for problem_id, entry in entries.items()
    )


def check_parameters(dataset: str, parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for a dataset or a parameter that does not exist, with the nearest name."""
    if dataset not in DATASETS:
        raise ValueError(
            f"reasoning-gym has {len(DATASETS)} datasets (python -c 'from reasoning_gym.factory import DATASETS as d; "
            f"print(*d)' lists them), but no {dataset!r}{did_you_mean(dataset, DATASETS)}"
        )
    known = [field.name for field in fields(DATASETS[dataset][1]) if field.name not in OWN_PARAMETERS]
    for name in parameters:
        if name in OWN_PARAMETERS:
            raise ValueError(
                f"{name} is not a parameter of the dataset here: set seed, num_train and num_held_out instead"
            )
        if name not in known:
            raise ValueError(
                f"the parameters of {dataset} are {', '.join(known)}; got {name!r}{did_you_mean(name, known)}"
            )


def draw(
    dataset: str, parameters: Mapping[str, Any], seed: int, num_wanted: int, wanted: str, excluded: frozenset[str]
) -> dict[str, Entry]:
    """Return `num_wanted` entries with different questions, none of them excluded, by problem id."""
    if num_wanted == 0:
        return {}
    size = DRAWS_PER_PROBLEM * num_wanted
    entries: dict[str, Entry] = {}
    seen = set(excluded)
    source = generated(dataset, parameters, seed, size)
    for index in range(size):
        entry = source[index]
        if entry["question"] not in seen:
            seen.add(entry["question"])
            entries[f"{dataset}:{seed}:{index}"] = entry
        if len(entries) == num_wanted:
            return entries
    raise ValueError(
        f"{dataset} gave only {len(entries)} questions for {wanted}={num_wanted} in {size} draws, the rest being "
        f"repetitions or held out; lower {wanted}, or choose parameters with more variety"
    )


def generated(dataset: str, parameters: Mapping[str, Any], seed: int, size: int) -> ProceduralDataset:
    """Return the dataset; its complaint about a parameter becomes a ValueError."""
    try:
        return create_dataset(dataset, **parameters, seed=seed, size=size)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"reasoning-gym does not accept {dict(parameters)} for {dataset}: {error}") from error

"""Drawing and scoring: groups of responses, scored while others are still being drawn."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from klimb.experience import Sample, SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Completion, Sampler, StreamingSampler
from klimb.tasks import Problem, Response, Score


@runtime_checkable
class ScoresResponses(Protocol):
    """What the loop needs of `klimb.tasks.Scorer`."""

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """One score a response; a reward of None where none could be computed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Who samples and who scores, on which problems.

    Attributes:
        policy: the model that is trained.
        sampler: draws from that policy.
        scorer: scores responses.
        problems: what is asked.
    """

    policy: Policy
    sampler: Sampler
    scorer: ScoresResponses
    problems: Sequence[Problem]


@dataclass(frozen=True, kw_only=True)
class Round:
    """Names and dates what one step draws.

    Attributes:
        seed: of the run.
        step: of the loop, from 1.
        policy_version: optimiser steps that the sampling weights have seen.
        record_log_ref: take the sampler's log-probabilities under the unaltered model as `log_ref`, because the
            reference has the same weights.
        first_group: number of the first group, if others were drawn at the same step before.
        run_key: begins every id, so that two runs' rollouts can be kept in one store.
    """

    seed: int
    step: int
    policy_version: int
    record_log_ref: bool
    first_group: int = 0
    run_key: str = ""


@dataclass(frozen=True)
class DrawnGroups:
    """Groups in the order of their problems.

    Attributes:
        groups: with rewards.
        sample_seconds: from the first token to the last.
        score_seconds: from then to the last score; what was scored meanwhile cost nothing.
    """

    groups: list[list[Sample]]
    sample_seconds: float
    score_seconds: float


def draw_and_score(
    actors: Actors,
    problems: Sequence[Problem],
    this_round: Round,
    *,
    num_samples: int,
    sampling: SamplingSettings,
    generator: torch.Generator,
    shuffle: torch.Generator | None = None,
) -> DrawnGroups:
    """One group of `num_samples` scored responses for each problem.

    A sampler that hands over groups as they end has them scored in a thread meanwhile; which tokens are drawn and
    which scores they get does not depend on that.

    Args:
        actors: who samples and scores.
        problems: what is asked.
        this_round: names and dates; its first group is that of the first problem.
        num_samples: responses a group.
        sampling: how tokens are drawn.
        generator: of the tokens.
        shuffle: if given, the scores are exchanged at random between all responses.
    """
    started = time.monotonic()
    prompts = [actors.policy.render(problem.messages) for problem in problems]
    groups: dict[int, list[Sample]] = {}
    with _Scoring(actors.scorer) as scoring:
        for place, answers in _completed_prompts(
            actors.sampler, prompts, num_samples=num_samples, settings=sampling, generator=generator
        ):
            for number, completions in zip(place, answers, strict=True):
                template = _template(actors, problems[number], prompts[number], sampling, this_round, offset=number)
                groups[number] = [
                    _completed(template, index, answer, actors, this_round) for index, answer in enumerate(completions)
                ]
            scoring.add({number: (problems[number], groups[number]) for number in place})
        sampled = time.monotonic()
        scores = scoring.scores()
    ordered = [groups[number] for number in range(len(problems))]
    flat = [score for number in range(len(problems)) for score in scores[number]]
    if shuffle is not None:
        flat = _exchanged(flat, shuffle)
    left = iter(flat)
    scored = [[_with_score(sample, next(left), shuffle) for sample in group] for group in ordered]
    return DrawnGroups(scored, sampled - started, time.monotonic() - sampled)


def _completed_prompts(
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    settings: SamplingSettings,
    generator: torch.Generator,
) -> Iterator[tuple[Sequence[int], Sequence[list[Completion]]]]:
    """Numbers of prompts with their completions: each prompt by itself as it ends, or all at the end."""
    if isinstance(sampler, StreamingSampler):
        for number, completions in sampler.stream(
            prompts, num_samples=num_samples, settings=settings, generator=generator
        ):
            yield [number], [completions]
    else:
        answers = sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)
        yield range(len(prompts)), answers


class _Scoring:
    """Scores groups in one thread, all that wait at once; a context manager."""

    def __init__(self, scorer: ScoresResponses) -> None:
        self._scorer = scorer
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Problem, list[Sample]]] = {}
        self._scores: dict[int, list[Score]] = {}
        self._runs: list[Future[None]] = []

    def __enter__(self) -> "_Scoring":
        return self

    def __exit__(self, *_: object) -> None:
        # After an error nothing more is scored, and the thread is waited for: the scorer is not used by two.
        self._pool.shutdown(cancel_futures=True)

    def add(self, groups: dict[int, tuple[Problem, list[Sample]]]) -> None:
        """Gives groups to be scored; an error of the scorer so far is raised here."""
        for run in self._runs:
            if run.done():
                run.result()
        with self._lock:
            self._waiting |= groups
        self._runs.append(self._pool.submit(self._score_waiting))

    def scores(self) -> dict[int, list[Score]]:
        """Waits for the rest."""
        for run in self._runs:
            run.result()
        return self._scores

    def _score_waiting(self) -> None:
        with self._lock:
            groups, self._waiting = self._waiting, {}
        if not groups:
            return
        problems = [problem for problem, group in groups.values() for _ in group]
        responses = [
            Response(text=sample.response, num_tokens=len(sample.response_ids), finish_reason=sample.finish_reason)
            for _, group in groups.values()
            for sample in group
        ]
        scores = iter(self._scorer.score_many(problems, responses))
        for number, (_, group) in groups.items():
            self._scores[number] = [next(scores) for _ in group]


def _template(
    actors: Actors,
    problem: Problem,
    prompt_ids: Sequence[int],
    sampling: SamplingSettings,
    this_round: Round,
    *,
    offset: int,
) -> Sample:
    """What the samples of a group share."""
    number = this_round.first_group + offset
    return Sample(
        sample_id="",
        group_id=f"{this_round.run_key}s{this_round.seed}-t{this_round.step:06d}-g{number:05d}",
        prompt=tuple(problem.messages),
        prompt_ids=tuple(prompt_ids),
        response="",
        response_ids=(),
        finish_reason="length",
        sampling=sampling,
        model=actors.policy.name,
        tokenizer=actors.policy.fingerprint,
        policy_version=this_round.policy_version,
        created_at=time.time(),
        metadata={"problem_id": problem.problem_id},
    )


def _completed(template: Sample, index: int, answer: Completion, actors: Actors, this_round: Round) -> Sample:
    return replace(
        template,
        sample_id=f"{template.group_id}-{index:04d}",
        response=actors.policy.decode(answer.response_ids),
        response_ids=tuple(answer.response_ids),
        finish_reason=answer.finish_reason,
        log_mu=tuple(answer.log_mu),
        log_mu_provenance="sampler",
        log_ref=tuple(answer.log_model) if this_round.record_log_ref else None,
    )


def _exchanged(scores: Sequence[Score], generator: torch.Generator) -> list[Score]:
    """The scores in random order, those without a reward staying where they are."""
    exchanged = list(scores)
    places = [index for index, score in enumerate(scores) if score.reward is not None]
    for place, source in zip(places, torch.randperm(len(places), generator=generator).tolist(), strict=True):
        exchanged[place] = scores[places[source]]
    return exchanged


def _with_score(sample: Sample, score: Score, shuffle: torch.Generator | None) -> Sample:
    marks = {} if shuffle is None else {"rewards": "shuffled"}
    if score.correct is not None:
        marks["correct"] = "yes" if score.correct else "no"
    return replace(
        sample,
        reward=score.reward,
        reward_parts=dict(score.parts),
        reward_reason=score.reason,
        metadata={**sample.metadata, **marks},
    )

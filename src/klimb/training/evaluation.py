"""Evaluate a policy on given problems, and keep each evaluation as one line of JSON in evaluations.jsonl."""

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from klimb.experience import SamplingSettings, replace_atomically
from klimb.findings.evaluations import (
    EvaluationRecord,
    ProblemRecord,
    Progress,
    When,
    line_of,
    pass_values,
)
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem, Response, Score
from klimb.tasks.environment_problems import ENVIRONMENT_SEED, seed_for
from klimb.training.dialogues import Talks, score_conversations
from klimb.training.response_scorer import ResponseScorer
from klimb.training.run_folder import read_evaluations

logger = logging.getLogger(__name__)


class NothingScored(ValueError):
    """No response of an evaluation could be scored."""


START = Progress()
"""Before the first step."""


def evaluate(
    policy: Policy,
    sampler: Sampler,
    scorer: ResponseScorer,
    problems: Sequence[Problem],
    *,
    settings: SamplingSettings,
    num_samples: int,
    generator: torch.Generator,
    when: When = "during",
    progress: Progress = START,
    dialogues: Talks | None = None,
) -> EvaluationRecord:
    """Sample `num_samples` responses to each problem and score them; temperature 0 is greedy and draws one.

    With `dialogues` a response is a conversation. Its environment has the same seed in each evaluation: what differs
    between two of them is the policy.

    Raises:
        ValueError: there is no problem.
        NothingScored: no response could be scored.
    """
    started = time.monotonic()
    if not problems:
        raise ValueError("evaluate: no problems; the task has an empty held-out part")
    drawn = 1 if settings.temperature == 0 else num_samples
    asked = [problem for problem in problems for _ in range(drawn)]
    questions = [problem.messages[-1]["content"] for problem in problems]
    if dialogues is None:
        responses = _draw(policy, sampler, problems, num_samples=drawn, settings=settings, generator=generator)
        scores = scorer.score_many(asked, responses)
    else:
        seeds = [seed_for(problem, f"{problem.problem_id}-{index}") for problem in problems for index in range(drawn)]
        held = dialogues.hold(asked, seeds=seeds, settings=settings, generator=generator)
        responses = [each.response for each in held]
        # With what the environment opened with, in the first of a problem's conversations.
        questions = [each.prompt[-1]["content"] for each in held[::drawn]]
        scores = score_conversations(scorer, asked, held)
    evaluation = summarise_scores(problems, responses, scores, questions=questions, when=when, progress=progress)
    return replace(evaluation, temperature=settings.temperature, seconds=time.monotonic() - started)


def _draw(
    policy: Policy,
    sampler: Sampler,
    problems: Sequence[Problem],
    *,
    num_samples: int,
    settings: SamplingSettings,
    generator: torch.Generator,
) -> list[Response]:
    """Return the responses, those to one problem together."""
    prompts = [policy.render(problem.messages) for problem in problems]
    completions = sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)
    return [
        Response(
            text=policy.decode(answer.response_ids),
            num_tokens=len(answer.response_ids),
            finish_reason=answer.finish_reason,
        )
        for group in completions
        for answer in group
    ]


def summarise_scores(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    scores: Sequence[Score],
    *,
    questions: Sequence[str] = (),
    when: When = "during",
    progress: Progress = START,
) -> EvaluationRecord:
    """Return the evaluation of scored responses, those of one problem standing together.

    `questions` are what each problem asked, where that is more than its own words.

    It is an accuracy where every scored response has a verdict, else its values are rewards throughout: a mean over
    verdicts of some and rewards of others would be neither.
    """
    per_problem = len(responses) // len(problems)
    scored = [score for score in scores if score.reward is not None]
    is_accuracy = _says_what_is_right(scored)
    results: list[ProblemRecord] = []
    for number, problem in enumerate(problems):
        part = slice(number * per_problem, (number + 1) * per_problem)
        values = tuple(
            score.reward if score.correct is None or not is_accuracy else float(score.correct)
            for score in scores[part]
            if score.reward is not None
        )
        answers = tuple(response.text for response in responses[part])
        results.append(
            ProblemRecord(
                problem_id=problem.problem_id,
                question=questions[number] if questions else problem.messages[-1]["content"],
                values=values,
                answers=answers,
                prompt_id=_prompt_id(problem),
            )
        )
    means = [statistics.fmean(result.values) for result in results if result.values]
    if not means:
        raise NothingScored(
            f"evaluate: none of {len(responses)} responses could be scored; the first: {scores[0].reason}"
        )
    pass_at = {k: statistics.fmean(values) for k, values in pass_values(results).items()} if is_accuracy else {}
    return EvaluationRecord(
        when=when,
        **asdict(progress),
        mean=statistics.fmean(means),
        count=len(scored),
        num_errors=len(scores) - len(scored),
        num_samples=per_problem,
        is_accuracy=is_accuracy,
        pass_at=pass_at,
        greedy=None,
        length_mean=statistics.fmean(response.num_tokens for response in responses),
        truncated_fraction=statistics.fmean(response.finish_reason == "length" for response in responses),
        problems=tuple(results),
    )


def _prompt_id(problem: Problem) -> str:
    """Return the same for problems that ask the same: they are one unit of evidence."""
    asked: list[object] = [*problem.messages]
    if ENVIRONMENT_SEED in problem.metadata:  # which an environment makes another question of
        asked.append(problem.metadata[ENVIRONMENT_SEED])
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _says_what_is_right(scored: Sequence[Score]) -> bool:
    """Return whether all of these have a verdict; warn where only some have."""
    num_verdicts = sum(score.correct is not None for score in scored)
    if 0 < num_verdicts < len(scored):
        logger.warning(
            "the score says right or wrong of %d of %d answers only, so this evaluation is the mean of rewards, "
            "without pass@k; let the reward say `correct` of every answer",
            num_verdicts,
            len(scored),
        )
    return num_verdicts == len(scored)


def append_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add one line, in the place of one that a crash or a full disk cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(_size_of_whole_lines(path))
        file.write(_line(record))


def write_evaluations(path: Path, records: Iterable[EvaluationRecord]) -> None:
    """Write the file with these records, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as aside:
        aside.write_bytes(b"".join(map(_line, records)))


def forget_evaluations_behind(path: Path, step: int) -> None:
    """Remove what was recorded after this step, and what was measured after the end: the run goes on from there."""
    records = read_evaluations(path)
    kept = [
        record for record in records if record.when == "before" or (record.when == "during" and record.step <= step)
    ]
    # One that was damaged and measured again stands behind those that were made after it.
    in_order = sorted(kept, key=lambda record: record.when != "before")
    if in_order != records:
        write_evaluations(path, in_order)


def _line(record: EvaluationRecord) -> bytes:
    return json.dumps(line_of(record)).encode() + b"\n"


def _size_of_whole_lines(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1

"""evaluations.jsonl: each evaluation of a run with the result of every problem, one line of JSON each."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from klimb.tasks import Problem
from klimb.training.evaluation import Evaluation

logger = logging.getLogger(__name__)

When = Literal["before", "during", "after"]


@dataclass(frozen=True, kw_only=True)
class ProblemRecord:
    """What came of one problem.

    Attributes:
        question: the last message of the prompt.
        values: of each scored response: 1 or 0 where the task says what is correct, the reward elsewhere.
        answers: the text of every response, scored or not.
    """

    problem_id: str
    question: str
    values: tuple[float, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation. Two of one run have the same problems in the same order, and draw from the same seed.

    Attributes:
        when: before the first step, during training, or after the last step.
        step: loop steps done.
        num_tokens_generated: response tokens that training had drawn by then.
        elapsed_seconds: that the steps had taken by then, evaluations left out.
        mean: Mean@k over the problems, with its 95 % interval `low` to `high`.
        count: responses scored.
        num_errors: responses without a score; in no mean.
        num_samples: responses a problem.
        is_accuracy: whether the task says what is correct.
        pass_at: k, as text -> probability that one of k responses is correct.
        greedy: the mean with the likeliest tokens; None if it was not asked for.
        length_mean: tokens of a response.
        truncated_fraction: share of responses that were cut off.
    """

    when: When
    step: int
    num_tokens_generated: int
    elapsed_seconds: float
    mean: float
    low: float
    high: float
    count: int
    num_errors: int
    num_samples: int
    is_accuracy: bool
    pass_at: Mapping[str, float]
    greedy: float | None
    length_mean: float
    truncated_fraction: float
    problems: tuple[ProblemRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run had come: `EvaluationRecord` says what each number is."""

    step: int = 0
    num_tokens_generated: int = 0
    elapsed_seconds: float = 0.0


def evaluation_record(
    evaluation: Evaluation,
    problems: Sequence[Problem],
    *,
    when: When,
    progress: Progress,
    num_samples: int,
    greedy: float | None = None,
) -> EvaluationRecord:
    """The evaluation of these problems, as it is kept."""
    return EvaluationRecord(
        when=when,
        **asdict(progress),
        mean=evaluation.mean,
        low=evaluation.low,
        high=evaluation.high,
        count=evaluation.count,
        num_errors=evaluation.num_errors,
        num_samples=num_samples,
        is_accuracy=bool(evaluation.pass_at),
        pass_at={str(k): value for k, value in evaluation.pass_at.items()},
        greedy=greedy,
        length_mean=evaluation.length_mean,
        truncated_fraction=evaluation.truncated_fraction,
        problems=tuple(
            ProblemRecord(
                problem_id=result.problem_id,
                question=problem.messages[-1]["content"],
                values=result.values,
                answers=result.answers,
            )
            for problem, result in zip(problems, evaluation.problems, strict=True)
        ),
    )


def append_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Adds one line; a disk that refuses it is reported, and the run goes on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(json.dumps(asdict(record)).encode() + b"\n")
    except OSError as error:
        logger.error("the evaluation after step %d is NOT kept in %s: %s", record.step, path, error)


def read_evaluations(path: Path) -> list[EvaluationRecord]:
    """The records in the order they were made; none if there is no file. A last line that was cut short is left out."""
    if not path.exists():
        return []
    return [_record(json.loads(line)) for line in path.read_bytes().split(b"\n")[:-1]]


def forget_evaluations_behind(path: Path, step: int) -> None:
    """Removes what was recorded after this step, and what was measured after the end: the run goes on from there."""
    records = read_evaluations(path)
    kept = [
        record for record in records if record.when == "before" or (record.when == "during" and record.step <= step)
    ]
    if len(kept) == len(records):
        return
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(b"".join(json.dumps(asdict(record)).encode() + b"\n" for record in kept))
    aside.replace(path)


def _record(stored: dict[str, Any]) -> EvaluationRecord:
    problems = tuple(
        ProblemRecord(
            problem_id=problem["problem_id"],
            question=problem["question"],
            values=tuple(problem["values"]),
            answers=tuple(problem["answers"]),
        )
        for problem in stored.pop("problems")
    )
    return EvaluationRecord(**stored, problems=problems)

"""From the folders of a study's runs to the numbers that are compared."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from klimb.findings.evaluations import EvaluationRecord, ProblemRecord
from klimb.findings.study.scores import EvaluationPoint, RunResult, RunStatus, StudyScores
from klimb.training import read_evaluations
from klimb.training.run_folder import RunFolder
from klimb.ui.pages.run import code_in_words
from klimb.workbench.study.cells import CellState, read_json, read_status, state_of
from klimb.workbench.study.plan import Cell, StudyPlan
from klimb.workbench.study.progress import last_row

STATUS: dict[CellState, RunStatus] = {
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
    "changed": "missing",
    "missing": "missing",
}


def collect_scores(plan: StudyPlan, *, command: str) -> StudyScores:
    """All that the statistics and the report are made from."""
    section = plan.study.study
    return StudyScores(
        name=section.name,
        baseline=section.baseline,
        budget_kind=section.budget.kind,
        budget=section.budget.amount,
        runs=tuple(result_of(plan, cell) for cell in plan.cells),
        command=command,
        facts=_facts(plan),
        notes=tuple(_notes(plan)),
        study_file=plan.text,
    )


def result_of(plan: StudyPlan, cell: Cell) -> RunResult:
    """Return what became of one cell; a run of other settings in its folder does not count."""
    path, state = plan.folder_of(cell), state_of(plan, cell)
    is_there = state in ("finished", "failed", "interrupted")
    kind = plan.study.study.budget.kind
    row = last_row(RunFolder(path).metrics) if is_there else {}
    spent = row.get("num_tokens_generated" if kind == "tokens" else "elapsed_seconds")
    return RunResult(
        task=cell.task,
        method=cell.method,
        setting=cell.setting,
        seed=cell.seed,
        status=STATUS[state],
        budget_spent=float(spent or 0.0),
        evaluations=_points(read_evaluations(RunFolder(path).evaluations)) if is_there else (),
        failure=str(read_status(path).get("error", "")) if state == "failed" else "",
        folder=f"runs/{cell.name}",
    )


def _facts(plan: StudyPlan) -> tuple[tuple[str, str], ...]:
    """Return what the finished runs were made with; several values where they differ."""
    stored = [read_json(RunFolder(plan.folder_of(cell)).provenance) for cell in plan.cells]
    begun = [provenance for provenance in stored if provenance]
    klimbs = {code_in_words(provenance.get("klimb")) for provenance in begun}
    repositories = {code_in_words(provenance.get("repository")) for provenance in begun}
    dates = sorted(str(provenance.get("started_at", ""))[:10] for provenance in begun)
    models = {cell.config.model.path for cell in plan.cells}
    threads = plan.study.study.threads_per_job
    return (
        ("model", ", ".join(sorted(models))),
        ("threads of a run", str(threads)),
        ("klimb", ", ".join(sorted(klimbs)) or "no run has begun"),
        ("your repository", ", ".join(sorted(repositories)) or "no run has begun"),
        *((package, ", ".join(sorted(_versions(begun, package)))) for package in ("torch", "transformers")),
        ("python", ", ".join(sorted({str(provenance.get("python", "?")) for provenance in begun}))),
        ("platform", ", ".join(sorted({str(provenance.get("platform", "?")) for provenance in begun}))),
        ("runs begun", " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "none"),
    )


def _versions(begun: Sequence[Mapping[str, Any]], package: str) -> set[str]:
    return {str(provenance.get("packages", {}).get(package, "?")) for provenance in begun}


def _notes(plan: StudyPlan) -> Iterator[str]:
    section = plan.study.study
    if section.description:
        yield section.description
    if section.budget.kind == "tokens":
        yield (
            f"Every run draws {section.budget.amount:,.0f} answer tokens in training, those of dropped groups "
            "included, and ends with the step that passes this number; scores are taken at the number itself."
        )
    else:
        yield (
            f"Every run trains for {section.budget.amount:,.0f} seconds, evaluations not counted. Runs side by side "
            "slow each other down: compare only runs of a machine that was doing nothing else."
        )
    yield (
        "The evaluation before training is made once for all runs of a task: they begin with the same model, the same "
        "held-out problems and the same seed of the answers."
    )


def _points(records: Sequence[EvaluationRecord]) -> tuple[EvaluationPoint, ...]:
    """One point for each moment: where the last step was evaluated twice, the one after training counts."""
    latest = {record.step: record for record in sorted(records, key=lambda record: record.when == "after")}
    return tuple(_point(latest[step]) for step in sorted(latest))


def _point(record: EvaluationRecord) -> EvaluationPoint:
    return EvaluationPoint(
        when=record.when,
        step=record.step,
        num_tokens=record.num_tokens_generated,
        seconds=record.elapsed_seconds,
        mean=record.mean,
        problems=tuple(_mean_of(problem) for problem in record.problems),
        problem_ids=tuple(problem.problem_id for problem in record.problems),
        pass_at={int(k): value for k, value in record.pass_at.items()},
        num_samples=record.num_samples,
        num_errors=record.num_errors,
        is_accuracy=record.is_accuracy,
        greedy=record.greedy,
        length_mean=record.length_mean,
        truncated_fraction=record.truncated_fraction,
    )


def _mean_of(problem: ProblemRecord) -> float:
    return statistics.fmean(problem.values) if problem.values else math.nan

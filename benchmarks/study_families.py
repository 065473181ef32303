"""A study's question about families instead of members: the mean of several methods against one, as a Markdown table.

    klimb compare headline
    python benchmarks/study_families.py headline studies/headline

Where the members of a family hardly differ, their mean over a seed has less noise than any of them. Each seed and
problem of the family is the mean over its members; the test is the study's own, paired by seed and problem, with Holm's
correction over all rows of a table and that of the looks.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from klimb.findings.study.comparing import Question, family
from klimb.findings.study.scores import Arm, EvaluationPoint, Measure, RunResult, StudyScores, measures_of
from klimb.workbench.study.collecting import collect_scores
from klimb.workbench.study.config import read_study
from klimb.workbench.study.plan import make_plan

FAMILIES = {
    "RPG-REINFORCE": ("rpg-reinforce-fkl", "rpg-reinforce-rkl", "rpg-reinforce-ufkl", "rpg-reinforce-urkl"),
    "RPG": ("rpg-fkl", "rpg-rkl", "rpg-ufkl", "rpg-urkl"),
}
AGAINST = ("grpo", "dapo", "ppo", "reinforce++")


def pooled(scores: StudyScores, measure: Measure) -> StudyScores:
    """Return the study with families in place of their members, and each run reduced to its value of each problem."""
    return replace(scores, runs=tuple(_pooled_runs(scores, measure)), baseline=AGAINST[0])


def _pooled_runs(scores: StudyScores, measure: Measure) -> Iterator[RunResult]:
    members = {**FAMILIES, **{name: (name,) for name in AGAINST}}
    for task in scores.tasks:
        for setting in scores.settings:
            for name, methods in members.items():
                for seed in scores.seeds:
                    found = [
                        run
                        for method in methods
                        for run in scores.scored(Arm(method, setting), task=task)
                        if run.seed == seed
                    ]
                    if len(found) == len(methods):
                        yield _mean_run(name, found, measure, budget=scores.budget)


def _mean_run(name: str, runs: Sequence[RunResult], measure: Measure, *, budget: float) -> RunResult:
    values = np.stack([measure.of_run(run) for run in runs]).mean(axis=0)
    point = EvaluationPoint(
        when="after",
        step=0,
        num_tokens=int(budget),
        seconds=budget,
        mean=float(np.nanmean(values)),
        problems=tuple(values.tolist()),
    )
    return replace(runs[0], method=name, evaluations=(point,))


def main() -> None:
    """Print a table for the last score and one for the score over the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="as klimb compare takes it")
    parser.add_argument("folder", type=Path, help="where its runs are")
    arguments = parser.parse_args()
    study, text = read_study(arguments.study)
    scores = collect_scores(make_plan(study, arguments.folder, source=arguments.study, text=text), command="")
    for key in ("last", "auc"):
        measure = measures_of(scores)[key]
        found = pooled(scores, measure)
        questions = [
            Question(Arm(name, setting), Arm(other, setting))
            for setting in scores.settings
            for name in FAMILIES
            for other in AGAINST
        ]
        answers = family(found, title="", measure=measures_of(found)["last"], questions=questions, tasks=found.tasks)
        print(f"\n{measure.title}, points over all tasks\n")
        print("| family | against | difference [95 %] | p | p, corrected |\n| :-- | :-- | --: | --: | --: |")
        for one in answers.comparisons:
            ends = [f"{100 * value:+.1f}" for value in (one.difference.value, one.difference.low, one.difference.high)]
            numbers = f"{ends[0]} [{ends[1]}, {ends[2]}] | {one.p_value:.2g} | {one.p_adjusted:.2g}"
            print(f"| {one.question.arm.name} | {one.question.against.method} | {numbers} |")


if __name__ == "__main__":
    main()

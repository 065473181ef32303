"""Limits on tokens and time, and what is kept of evaluations."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from klimb.training import EvaluationSettings, read_evaluations, read_metrics

EVALUATION = EvaluationSettings(num_samples=2)


def test_a_run_ends_after_the_step_that_used_up_its_tokens_dropped_groups_included(
    tiny_run, tiny_policy, tmp_path: Path
):
    settings = replace(
        tiny_run.BASE,
        advantages=replace(tiny_run.BASE.advantages, group_filter=True),
        training=replace(tiny_run.BASE.training, num_steps=50, max_generated_tokens=250),
    )
    result = tiny_run.run(tiny_policy, tmp_path, settings)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert result.num_steps == len(rows) < 50
    assert [row["num_tokens_generated"] >= 250 for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["num_tokens_generated"] == sum(row["num_tokens_sampled"] for row in rows)
    assert result.progress.num_tokens_generated == rows[-1]["num_tokens_generated"]


def test_tokens_of_before_the_interruption_count(tiny_run, tiny_model_path, tmp_path: Path):
    from klimb.policies import load_policy

    def fresh():
        return load_policy(str(tiny_model_path), dtype="float32", device="cpu")

    limited = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=50, max_generated_tokens=400))
    straight = tiny_run.run(fresh(), tmp_path / "straight", limited)
    tiny_run.run(fresh(), tmp_path / "torn", replace(limited, training=replace(limited.training, num_steps=2)))
    torn = tiny_run.run(fresh(), tmp_path / "torn", limited, resume=True)
    assert torn.num_steps == straight.num_steps > 2
    assert torn.progress.num_tokens_generated == straight.progress.num_tokens_generated


def test_a_run_ends_after_the_step_that_used_up_its_training_time(tiny_run, tiny_policy, tmp_path: Path):
    result = tiny_run.run(
        tiny_policy,
        tmp_path,
        replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, max_training_seconds=1e-9)),
    )
    assert result.num_steps == 1
    assert result.progress.elapsed_seconds > 1e-9


def test_evaluations_come_each_time_that_so_many_tokens_were_drawn(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(tiny_run.BASE, evaluation=replace(EVALUATION, every_tokens=200))
    tiny_run.run(tiny_policy, tmp_path, settings, held_out=tiny_run.PROBLEMS[:3])
    rows = read_metrics(tmp_path / "metrics.jsonl")
    generated = [0, *(row["num_tokens_generated"] for row in rows)]
    due = [after // 200 > before // 200 for before, after in itertools.pairwise(generated)]
    assert [("evaluation_mean" in row) for row in rows] == due
    assert 0 < sum(due) < len(due)


def test_each_evaluation_is_kept_with_every_problem_and_answer(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(tiny_run.BASE, evaluation=replace(EVALUATION, every_steps=3))
    tiny_run.run(tiny_policy, tmp_path, settings, held_out=tiny_run.PROBLEMS[:3])
    records = read_evaluations(tmp_path / "evaluations.jsonl")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(record.when, record.step) for record in records] == [("during", 3), ("during", 6)]
    for record in records:
        row = rows[record.step - 1]
        assert record.mean == row["evaluation_mean"]
        assert record.num_tokens_generated == row["num_tokens_generated"]
        assert [problem.question for problem in record.problems] == ["Say 0", "Say 1", "Say 2"]
        means = [sum(problem.values) / len(problem.values) for problem in record.problems]
        assert sum(means) / 3 == pytest.approx(record.mean)
        assert all(len(problem.answers) == 2 for problem in record.problems)


def test_evaluations_behind_the_checkpoint_are_made_again_once(tiny_run, tiny_model_path, tmp_path: Path):
    from klimb.policies import load_policy

    def fresh():
        return load_policy(str(tiny_model_path), dtype="float32", device="cpu")

    settings = replace(tiny_run.BASE, evaluation=replace(EVALUATION, every_steps=1))
    arguments = {"held_out": tiny_run.PROBLEMS[:2]}
    tiny_run.run(fresh(), tmp_path / "straight", settings, **arguments)
    broken = replace(
        settings,
        training=replace(settings.training, num_steps=5),
        checkpoints=replace(settings.checkpoints, every_steps=4, at_end=False),
    )
    tiny_run.run(fresh(), tmp_path / "torn", broken, **arguments)
    path = tmp_path / "torn" / "evaluations.jsonl"
    assert [record.step for record in read_evaluations(path)] == [1, 2, 3, 4, 5]
    tiny_run.run(fresh(), tmp_path / "torn", settings, resume=True, **arguments)
    torn, straight = read_evaluations(path), read_evaluations(tmp_path / "straight" / "evaluations.jsonl")
    assert [replace(record, elapsed_seconds=0.0) for record in torn] == [
        replace(record, elapsed_seconds=0.0) for record in straight
    ]


def test_a_last_line_that_was_cut_short_is_left_out(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(tiny_run.BASE, evaluation=replace(EVALUATION, every_steps=3))
    tiny_run.run(tiny_policy, tmp_path, settings, held_out=tiny_run.PROBLEMS[:2])
    path = tmp_path / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert [record.step for record in read_evaluations(path)] == [3]
    assert read_evaluations(tmp_path / "nothing.jsonl") == []

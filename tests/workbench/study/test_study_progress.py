"""How far a study has come, from files that are growing."""

import time
from pathlib import Path

import pytest
from tests.workbench.study.tiny_study import tiny_plan

from klimb.workbench.study.progress import StudyProgress, last_row


def begun(tmp_path: Path, *, seconds_ago: float, spent: int) -> StudyProgress:
    """A study of four runs with a budget of 60 tokens, the first of which is on its way."""
    plan = tiny_plan(tmp_path, tmp_path)
    progress = StudyProgress.of(plan, plan.cells, left=plan.cells)
    first = plan.cells[0]
    plan.folder_of(first).mkdir(parents=True)
    (plan.folder_of(first) / "metrics.jsonl").write_text(f'{{"num_tokens_generated": {spent}}}\n')
    progress.running[first.name] = (first, time.monotonic() - seconds_ago)
    return progress


def test_a_run_has_come_as_far_as_its_last_whole_line_says(tmp_path: Path):
    progress = begun(tmp_path, seconds_ago=1, spent=15)
    first = progress.cells[0]
    path = progress.plan.folder_of(first) / "metrics.jsonl"
    assert progress.fraction_of(first) == 0.25
    path.write_text(path.read_text() + '{"num_tokens_generated": 45}\n{"num_tokens_gen')
    assert progress.fraction_of(first) == 0.75
    path.write_text(path.read_text().replace("45", "450"))
    assert progress.fraction_of(first) == 1
    assert progress.fraction_of(progress.cells[1]) == 0


def test_the_time_left_is_the_work_left_at_the_pace_of_finished_runs_shared_by_the_slots(tmp_path: Path):
    progress = begun(tmp_path, seconds_ago=1, spent=30)
    progress.seconds.extend([80.0, 120.0])
    assert progress.seconds_left(2) == pytest.approx((4 - 0.5) * 100 / 2)


def test_before_a_run_has_finished_the_running_ones_tell_the_pace(tmp_path: Path):
    progress = begun(tmp_path, seconds_ago=10, spent=30)
    assert progress.seconds_left(1) == pytest.approx((4 - 0.5) * 20, rel=1e-3)


def test_nothing_tells_the_time_left_at_first(tmp_path: Path):
    assert begun(tmp_path, seconds_ago=10, spent=0).seconds_left(1) is None


@pytest.mark.parametrize(("content", "row"), [("", {}), ('{"a"', {}), ("nonsense\n", {}), ('{"a": 1}\n', {"a": 1})])
def test_a_file_without_a_whole_line_has_no_row(tmp_path: Path, content: str, row: dict[str, int]):
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) == {}
    path.write_text(content)
    assert last_row(path) == row

"""Studies that are run: to the end, past failures, past a kill and past an interruption."""

import os
import signal
from pathlib import Path

import pytest
from tests.workbench.study.tiny_study import cell_named, run_tiny, tiny_plan

from klimb.errors import Interrupted
from klimb.training import read_evaluations, read_metrics, run_folder_lock, without_wall_clock
from klimb.training.run_folder import RunFolder
from klimb.workbench.study import runner
from klimb.workbench.study.cells import lock_folder_of, read_status, state_of, tail_of_log
from klimb.workbench.study.collecting import collect_scores, result_of
from klimb.workbench.study.plan import Cell, StudyPlan


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner looks around so often that a test can meet a run on its way."""
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path):
    """A study that has been run to its end, and what was printed."""
    plan = tiny_plan(tmp_path_factory.mktemp("study"), tiny_model_path)
    return plan, run_tiny(plan)


def files_of(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def test_every_run_ends_with_the_step_that_spends_the_budget(finished):
    plan, _ = finished
    for cell in plan.cells:
        spent = [row["num_tokens_generated"] for row in read_metrics(RunFolder(plan.folder_of(cell)).metrics)]
        assert spent[-1] >= 60
        assert all(tokens < 60 for tokens in spent[:-1])


def test_every_run_is_evaluated_before_halfway_and_at_the_end(finished):
    plan, _ = finished
    for result in collect_scores(plan, command="klimb compare tiny").runs:
        assert result.status == "finished"
        assert [point.when for point in result.evaluations] == ["before", "during", "after"]
        assert result.evaluations[1].num_tokens >= 30
        assert result.budget_spent == result.evaluations[-1].num_tokens


def test_the_evaluation_of_the_untrained_model_is_made_once_and_shared(finished):
    plan, shown = finished
    first = [read_evaluations(RunFolder(plan.folder_of(cell)).evaluations)[0] for cell in plan.cells]
    assert all(record == first[0] for record in first)
    assert shown.count("evaluating the untrained model") == 1


def test_a_run_of_a_study_keeps_numbers_and_what_it_printed_but_no_weights(finished):
    plan, _ = finished
    folder = plan.folder_of(plan.cells[0])
    assert {"config.json", "provenance.json", "metrics.jsonl", "evaluations.jsonl", "summary.json", "log.txt"} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.rglob("*.safetensors"))
    assert "step 1  reward" in tail_of_log(folder)


def test_what_is_finished_is_not_run_again(finished):
    plan, _ = finished
    before = files_of(plan.folder / "runs")
    assert "0 of 4 runs to do" in run_tiny(plan)
    assert files_of(plan.folder / "runs") == before


def test_a_run_whose_settings_changed_is_set_aside_and_run_anew(tmp_path: Path, tiny_model_path: Path):
    earlier = tiny_plan(tmp_path, tiny_model_path, amount=20)
    run_tiny(earlier, cells=earlier.cells[:1])
    written = (earlier.folder_of(earlier.cells[0]) / "metrics.jsonl").read_bytes()
    later = tiny_plan(tmp_path, tiny_model_path, amount=30)
    assert state_of(later, later.cells[0]) == "changed"
    run_tiny(later, cells=later.cells[:1])
    assert (tmp_path / "set-aside" / "sums" / "grpo" / "seed-0" / "metrics.jsonl").read_bytes() == written
    assert state_of(later, later.cells[0]) == "finished"


def test_a_run_that_fails_is_written_down_and_the_others_go_on(tmp_path: Path, tiny_model_path: Path):
    broken = "[methods.broken.objective]\nrecipe = 'grpo'\n[methods.broken.model]\npath = 'no-such-model'\n"
    plan = tiny_plan(tmp_path, tiny_model_path, more=broken, change=("seeds = 2", "seeds = 1"))
    shown = run_tiny(plan)
    states = {cell.method: state_of(plan, cell) for cell in plan.cells}
    assert states == {"grpo": "finished", "rloo": "finished", "broken": "failed"}
    result = result_of(plan, plan.cells[2])
    assert result.status == "failed"
    assert "no-such-model" in result.failure and "no-such-model" in shown
    assert "Traceback" in read_status(plan.folder_of(plan.cells[2]))["traceback"]
    assert "1 failed earlier" in run_tiny(plan)


@pytest.mark.usefixtures("quick_looks")
def test_a_killed_run_is_failed_the_others_finish_and_it_can_be_run_again(tmp_path: Path, tiny_model_path: Path):
    plan = tiny_plan(tmp_path, tiny_model_path, amount=300, change=("seeds = 2", "seeds = 1"))
    victim = cell_named(plan, "sums/grpo/seed-0")
    killed: list[int] = []

    def kill_once() -> None:
        status = read_status(plan.folder_of(victim))
        if not killed and status.get("state") == "running":
            killed.append(status["pid"])
            os.kill(status["pid"], signal.SIGKILL)

    shown = run_tiny(plan, act=kill_once)
    assert [state_of(plan, cell) for cell in plan.cells] == ["failed", "finished"]
    assert "SIGKILL" in read_status(plan.folder_of(victim))["error"] and "out of memory" in shown
    run_tiny(plan, retry_failed=True)
    assert state_of(plan, victim) == "finished"
    assert (tmp_path / "set-aside" / "sums" / "grpo" / "seed-0" / "status.json").is_file()


def rows_of(plan: StudyPlan, cell: Cell) -> list[dict[str, float | None]]:
    return [without_wall_clock(row) for row in read_metrics(RunFolder(plan.folder_of(cell)).metrics)]


@pytest.mark.usefixtures("quick_looks")
def test_an_interrupted_study_goes_on_and_ends_with_the_numbers_of_an_uninterrupted_one(
    tmp_path: Path, tiny_model_path: Path
):
    change = ("seeds = 2", "seeds = 1")
    whole = tiny_plan(tmp_path / "whole", tiny_model_path, amount=300, change=change)
    run_tiny(whole)
    plan = tiny_plan(tmp_path / "parts", tiny_model_path, amount=300, change=change)
    first = RunFolder(plan.folder_of(plan.cells[0]))
    sent: list[int] = []

    def interrupt() -> None:
        if not sent and first.metrics.is_file() and first.metrics.read_bytes().count(b"\n") >= 3:
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run_tiny(plan, act=interrupt, num_slots=1)
    assert [state_of(plan, cell) for cell in plan.cells] == ["interrupted", "missing"]
    num_done = len(rows_of(plan, plan.cells[0]))
    assert [path.name for path in (first.path / "checkpoints").glob("step-*")] == [f"step-{num_done:06d}"]
    run_tiny(plan)
    for cell, other in zip(plan.cells, whole.cells, strict=True):
        assert rows_of(plan, cell) == rows_of(whole, other)
    assert not (first.path / "checkpoints").exists()


def test_a_cell_that_another_compare_works_on_is_left_to_it(tmp_path: Path, tiny_model_path: Path):
    plan = tiny_plan(tmp_path, tiny_model_path, amount=20, change=("seeds = 2", "seeds = 1"))
    with run_folder_lock(lock_folder_of(plan, plan.cells[0])):
        shown = run_tiny(plan)
    assert "elsewhere sums/grpo/seed-0" in shown
    assert [state_of(plan, cell) for cell in plan.cells] == ["missing", "finished"]

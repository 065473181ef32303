"""What runs go side by side on, and what they begin with."""

from pathlib import Path

import pytest
from tests.workbench.study.tiny_study import cell_named, tiny_plan

from klimb.findings.evaluations import Progress
from klimb.training import read_evaluations
from klimb.training.run_folder import RunFolder
from klimb.workbench.measuring import measure
from klimb.workbench.session import make_session
from klimb.workbench.study import runner
from klimb.workbench.study.runner import make_slots
from klimb.workbench.study.worker import copy_start, is_measured, measure_start, start_key


@pytest.fixture
def with_devices(monkeypatch: pytest.MonkeyPatch):
    """A machine of eight cores with these GPUs."""

    def put(*devices: str) -> None:
        monkeypatch.setattr(runner, "visible_devices", lambda: devices)
        monkeypatch.setattr(runner, "num_cores", lambda: 8)

    return put


def devices_of(path: Path, model: Path, *, device: str, jobs, threads: int = 1) -> list[str | None]:
    plan = tiny_plan(path, model, change=('device = "cpu"', f'device = "{device}"'))
    made = make_slots([cell.config for cell in plan.cells], jobs=jobs, threads_per_job=threads)
    assert [slot.number for slot in made] == list(range(len(made)))
    return [slot.visible_devices for slot in made]


def test_each_gpu_gets_one_run_and_more_jobs_take_turns(tmp_path, with_devices):
    with_devices("0", "1", "3")
    assert devices_of(tmp_path, tmp_path, device="auto", jobs="auto") == ["0", "1", "3"]
    assert devices_of(tmp_path, tmp_path, device="cuda", jobs=5) == ["0", "1", "3", "0", "1"]


def test_without_a_gpu_each_run_gets_its_cores(tmp_path, with_devices):
    with_devices()
    assert devices_of(tmp_path, tmp_path, device="auto", jobs="auto", threads=3) == [None, None]
    assert devices_of(tmp_path, tmp_path, device="auto", jobs="auto", threads=100) == [None]


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_device_that_the_file_names_is_not_hidden_from_its_runs(tmp_path, with_devices, device):
    with_devices("0", "1")
    assert devices_of(tmp_path, tmp_path, device=device, jobs=2) == [None, None]


def test_the_untrained_model_scores_the_same_whatever_the_method_and_seed(tmp_path: Path, tiny_model_path: Path):
    reward = ('kind = "arithmetic"', 'kind = "arithmetic"\nwording = "{expression}"')
    plan = tiny_plan(tmp_path, tiny_model_path, change=reward)
    first, other = cell_named(plan, "sums/grpo/seed-0").config, cell_named(plan, "sums/rloo/seed-1").config
    assert start_key(first) == start_key(other)
    measure_start(make_session(first), tmp_path / "start")
    [shared] = read_evaluations(RunFolder(tmp_path / "start").evaluations)
    session = make_session(other)
    with session.scorer:
        own = measure(
            session.policy,
            session.sampler,
            session.scorer,
            session.held_out,
            other,
            when="before",
            progress=Progress(),
        )
    assert [problem.answers for problem in shared.problems] == [problem.answers for problem in own.problems]
    assert shared.mean == own.mean


def test_a_start_is_shared_only_once_it_is_whole(tmp_path: Path):
    start, run = tmp_path / "start", tmp_path / "run"
    start.mkdir()
    run.mkdir()
    (start / "evaluations.jsonl").write_text("{}\n")
    copy_start(start, run)
    assert not is_measured(start) and list(run.iterdir()) == []
    (start / "complete").touch()
    copy_start(start, run)
    assert is_measured(start) and [path.name for path in run.iterdir()] == ["evaluations.jsonl"]


@pytest.mark.parametrize(
    "change",
    [
        ("num_problems = 2", "num_problems = 3"),
        ("max_new_tokens = 6", "max_new_tokens = 7"),
        ('kind = "arithmetic"', 'kind = "arithmetic"\ndigits = 2'),
        ('dtype = "float32"', 'dtype = "bfloat16"'),
    ],
)
def test_another_task_model_or_way_of_asking_is_measured_apart(tmp_path: Path, change: tuple[str, str]):
    plain = tiny_plan(tmp_path, tmp_path).cells[0].config
    assert start_key(tiny_plan(tmp_path, tmp_path, change=change).cells[0].config) != start_key(plain)

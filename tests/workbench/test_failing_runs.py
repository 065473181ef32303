"""A run that an error or a signal ends, at any point, from the command line: one line, a status, and a way on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from klimb.errors import RunFailed
from klimb.policies import Policy
from klimb.training import iteration as iteration_module
from klimb.training import loop as loop_module
from klimb.training import newest_checkpoint, read_metrics
from klimb.ui.live import FailSafeView
from klimb.workbench import run as run_module

# A run takes twice as long when the shapes are checked; other tests check those of the same run.
pytestmark = pytest.mark.usefixtures("without_shape_checks")

MAIN = [sys.executable, "-c", "from klimb.workbench.cli import main; main()"]


@pytest.fixture
def run(workplace) -> Path:
    return workplace.path / "runs" / "run"


def fails_at(call: int, real, error: BaseException | None = None):
    """The function, failing at that call alone."""
    calls = [0]

    def wrapped(*arguments, **keywords):
        calls[0] += 1
        if calls[0] == call:
            raise error or RuntimeError("as injected")
        return real(*arguments, **keywords)

    return wrapped


def assert_goes_on(workplace, run: Path) -> None:
    outcome = workplace.klimb("train", "--resume", "runs/run")
    assert outcome.status == 0, outcome.err
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]
    assert json.loads((run / "summary.json").read_text())["num_steps"] == 3
    assert not (run / "ending.json").exists()


def test_an_error_in_a_step_is_one_line_with_status_3_and_a_resume_goes_on(workplace, run: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iteration_module, "update", fails_at(2, iteration_module.update))
        outcome = workplace.klimb("train", "run.toml", "--set", "checkpoints.every_steps=100")
    assert outcome.status == 3
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("RuntimeError: as injected (test_failing_runs.py, line ")
    assert "in step 2; saved after step 1; go on with: klimb train --resume runs/run" in outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    assert "RuntimeError: as injected" in (run / "traceback.txt").read_text()
    assert_goes_on(workplace, run)


def test_what_could_not_be_saved_is_status_4(workplace, run: Path):
    def refuse(*arguments, **keywords) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iteration_module, "update", fails_at(2, iteration_module.update))
        patch.setattr(loop_module, "save_checkpoint", refuse)
        outcome = workplace.klimb("train", "run.toml")
    assert outcome.status == 4
    assert "NOT saved after step 1: its last step is done again" in outcome.err
    assert "No space left on device" in outcome.err


@pytest.mark.parametrize(
    ("where", "at_end"),
    [
        ("save", "true"),
        ("save", "false"),
        ("_measure", "true"),
        pytest.param("_measure", "false", marks=pytest.mark.slow),
        ("plot", "true"),
        pytest.param("plot", "false", marks=pytest.mark.slow),
        pytest.param("report", "true", marks=pytest.mark.slow),
        ("report", "false"),
    ],
)
def test_an_error_after_training_loses_no_step(workplace, run: Path, where: str, at_end: str):
    is_drawn = "true" if where in ("plot", "report") else "false"
    settings = [f"checkpoints.at_end={at_end}", "checkpoints.every_steps=100", f"run.report={is_drawn}"]
    with pytest.MonkeyPatch.context() as patch:
        if where == "save":
            patch.setattr(Policy, "save", fails_at(1, Policy.save, OSError(28, "No space left on device")))
        elif where == "_measure":
            patch.setattr(run_module, "_measure", fails_at(2, run_module._measure, MemoryError("no room")))
        else:
            name = {"plot": "plot_curves", "report": "report_at_the_end"}[where]
            patch.setattr(run_module, name, fails_at(1, getattr(run_module, name)))
        outcome = workplace.klimb("train", "run.toml", "--set", *settings)
    assert outcome.status == 3, outcome.err
    assert "after training; saved after step 3; go on with: klimb train --resume runs/run" in outcome.err
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None and newest.name == "step-000003"
    assert_goes_on(workplace, run)


def test_an_error_before_training_goes_on_from_the_beginning(workplace, run: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "_measure", fails_at(1, run_module._measure))
        outcome = workplace.klimb("train", "run.toml")
    assert outcome.status == 3
    assert "before training; nothing was trained yet; go on with: klimb train --resume runs/run" in outcome.err
    assert_goes_on(workplace, run)


def test_what_is_refused_before_anything_began_is_status_2_and_leaves_no_ending(workplace, run: Path):
    assert workplace.klimb("train", "run.toml").status == 0
    outcome = workplace.klimb("train", "--resume", "runs/run", "--set", "seed=7")
    assert outcome.status == 2
    assert not (run / "ending.json").exists()


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (1, signal.SIGTERM),
        (2, signal.SIGINT),
        (2, signal.SIGHUP),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_before_or_after_the_loop_ends_in_order(workplace, run: Path, number: int, call: int):
    if signal.getsignal(number) == signal.SIG_IGN:  # a run under nohup ignores SIGHUP, as it should
        pytest.skip("the tests were started with this signal ignored")
    real, before, calls = run_module._measure, signal.getsignal(number), [0]

    def stopped(*arguments, **keywords):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return real(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "_measure", stopped)
        outcome = workplace.klimb("train", "run.toml")
    assert outcome.status == 128 + number
    assert "klimb train --resume runs/run" in outcome.out
    left = json.loads((run / "ending.json").read_text())
    assert (left["kind"], left["during"]) == ("signal", ["before training", "after training"][call - 1])
    assert signal.Signals(number).name in left["reason"]
    assert signal.getsignal(number) == before
    assert_goes_on(workplace, run)


def test_a_signal_while_the_model_is_loaded_ends_before_anything_began(workplace, run: Path, monkeypatch):
    from klimb.workbench import session as session_module

    def stopped(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal raises first")

    monkeypatch.setattr(session_module, "make_session", stopped)
    assert workplace.klimb("train", "run.toml").status == 143
    assert not run.exists()


def test_a_display_that_fails_costs_the_display_alone(caplog):
    class Broken:
        def __getattr__(self, name: str):
            raise SystemExit(1)  # as rich does when its pipe is closed

    view = FailSafeView(Broken)
    view.phase("sampling")
    view.step(1, {}, None)
    view.close()
    assert caplog.text.count("the display failed") == 1

    def unopened():
        raise OSError(5, "Input/output error")

    FailSafeView(unopened).step(1, {}, None)


def test_from_python_the_error_is_the_original_one_with_a_note(tiny_session_error):
    error = tiny_session_error
    assert type(error) is RuntimeError and not isinstance(error, RunFailed)
    assert "saved after step 1; resume " in error.__notes__[0]


@pytest.fixture
def tiny_session_error(workplace, monkeypatch) -> BaseException:
    monkeypatch.setattr(iteration_module, "update", fails_at(2, iteration_module.update))
    monkeypatch.setenv("KLIMB_TRACEBACK", "1")
    with pytest.raises(RuntimeError) as raised:
        workplace.klimb("train", "run.toml")
    return raised.value


def start(workplace, **keywords) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    settings = ["--set", "task.reward=task", "evaluation.at_ends=false"]
    return subprocess.Popen([*MAIN, "train", "run.toml", *settings], cwd=workplace.path, env=environment, **keywords)


@pytest.mark.slow  # the sample of the campaign has the same fault, "closed standard output"
def test_a_pipe_that_is_closed_costs_the_display_and_not_the_run(workplace, run: Path):
    process = start(workplace, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=300) == 0
    assert json.loads((run / "summary.json").read_text())["num_steps"] == 3


@pytest.mark.slow
def test_standard_streams_that_were_closed_before_the_start_are_no_files_of_the_run(workplace, run: Path):
    command = " ".join(["exec", *(f"'{part}'" for part in MAIN), "train", "run.toml", "--set", "task.reward=task"])
    done = subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], cwd=workplace.path, timeout=300, check=False)
    assert done.returncode == 0
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.slow
def test_a_terminal_that_goes_away_costs_the_display_and_its_sighup_saves(workplace, run: Path):
    main, terminal = os.openpty()
    process = start(workplace, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    os.read(main, 10)
    os.close(main)
    assert process.wait(timeout=300) in (0, 129)


def test_an_ignored_sighup_stays_ignored():
    from klimb.training.signals import StopRequest, stops_at_once

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops_at_once(), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal_number is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

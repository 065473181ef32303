"""A damaged folder is mended or refused in one line, a run can be begun anew, and each is found from anywhere."""

import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest

from klimb.errors import ConfigError
from klimb.training import read_metrics, run_folder_lock
from klimb.training import run_folder as run_folder_module
from klimb.training.run_folder import claim_folder, move_aside, read_evaluations
from klimb.workbench.config import build_config
from klimb.workbench.provenance import new_run_folder

QUICK = ("evaluation.at_ends=false", "run.save_model=false", "scoring.max_error_fraction=1.0")


def train(workplace, *arguments: str, settings: tuple[str, ...] = QUICK):
    sys.modules.pop("my_reward", None)
    return workplace.klimb("train", *arguments, "--set", *settings)


def one_line(outcome) -> str:
    assert outcome.status == 2, outcome.out
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    assert len(lines) == 1, outcome.err
    return lines[0]


@pytest.fixture
def run(workplace) -> Path:
    """A run of two steps, which has ended and can go on."""
    assert train(workplace, "run.toml", settings=(*QUICK, "training.num_steps=2")).status == 0
    return workplace.path / "runs" / "run"


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_run_without_its_checkpoints_is_refused_and_restart_keeps_the_old_one(workplace, run):
    shutil.rmtree(run / "checkpoints")
    before = snapshot(run)
    message = one_line(workplace.klimb("train", "--resume", "runs/run"))
    assert "holds 2 steps and no checkpoint" in message and "klimb train --resume runs/run --restart" in message
    assert snapshot(run) == before
    again = workplace.klimb("train", "--resume", "runs/run", "--restart", "--set", "training.num_steps=1")
    assert again.status == 0, again.err
    assert "kept the run that was there as runs/run-1" in again.out
    assert {path.relative_to(run): content for path, content in before.items()} == {
        path.relative_to(workplace.path / "runs" / "run-1"): content
        for path, content in snapshot(workplace.path / "runs" / "run-1").items()
    }
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1]
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (workplace.path / "runs" / "run-1", run))
    assert new == {**old, "training": {**old["training"], "num_steps": 1}}


def test_restart_is_for_a_run_that_is_there_and_that_nobody_holds(workplace, run):
    assert "give its folder with --resume" in one_line(workplace.klimb("train", "run.toml", "--restart"))
    with run_folder_lock(run):
        assert "is in use by process" in one_line(workplace.klimb("train", "--resume", "runs/run", "--restart"))
    assert not (workplace.path / "runs" / "run-1").exists()


@pytest.mark.parametrize("content", [b"", b'{"seed": 1,', b"\x80\x04\x95", b"[]"])
def test_a_damaged_configuration_is_refused_in_one_line_with_the_way_out(workplace, run, content: bytes):
    (run / "config.json").write_bytes(content)
    before = snapshot(run)
    message = one_line(workplace.klimb("train", "--resume", "runs/run"))
    assert "runs/run/config.json" in message and "put a copy of the file back, or begin a new run" in message
    assert snapshot(run) == before
    assert "runs/run/config.json" in one_line(workplace.klimb("eval", "runs/run"))


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04\x95", b"7"])
def test_side_files_are_made_again_and_the_run_goes_on(workplace, run, content: bytes | None, caplog):
    identity = json.loads((run / "identity.json").read_text())["identity"]
    for name in ("provenance.json", "identity.json", "summary.json"):
        (run / name).unlink() if content is None else (run / name).write_bytes(content)
    (run / "guard.json").write_bytes(content or b"")
    resumed = train(workplace, "--resume", "runs/run", settings=(*QUICK, "training.num_steps=3"))
    assert resumed.status == 0, resumed.err
    made = json.loads((run / "identity.json").read_text())["identity"]
    # Of a file that is gone it is written by the run that goes on, which is told to do one step more.
    assert made == (identity if content is not None else {**identity, "training.num_steps": 3})
    assert json.loads((run / "summary.json").read_text())["num_steps"] == 3
    assert json.loads((run / "provenance.json").read_text())["seed"] == 1
    assert caplog.text.count("provenance.json: ") == 1
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]


def test_a_damaged_first_evaluation_is_measured_again(workplace):
    quick = ("run.save_model=false", "training.num_steps=2")
    assert train(workplace, "run.toml", settings=quick).status == 0
    path = workplace.path / "runs" / "run" / "evaluations.jsonl"
    whole = read_evaluations(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0][:80] + "\n" + "".join(lines[1:]))
    resumed = train(workplace, "--resume", "runs/run", settings=("training.num_steps=3",))
    assert resumed.status == 0, resumed.err
    made = read_evaluations(path)
    assert [each.when for each in made] == ["before", "after"] and made[0] == whole[0]


def test_half_a_last_line_everywhere_is_named_and_the_run_goes_on(workplace, run, caplog):
    for name in ("metrics.jsonl", "config_history.jsonl", "evaluations.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 2, "key": "seed"')
    (run / ".config.json.tmp").write_text("{")
    resumed = train(workplace, "--resume", "runs/run", settings=(*QUICK, "training.num_steps=3"))
    assert resumed.status == 0, resumed.err
    assert caplog.text.count("its last line was cut short") == 3
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]
    assert not (run / ".config.json.tmp").exists()


def test_a_report_of_a_damaged_run_says_so_on_its_page(workplace, run):
    path = run / "metrics.jsonl"
    path.write_text("garbled\n" + path.read_text())
    assert workplace.klimb("report", "runs/run", "--output", "page.html").status == 0
    page = (workplace.path / "page.html").read_text()
    assert "metrics.jsonl: line 1 of 3 cannot be read" in page


def test_a_run_that_has_ended_keeps_its_last_checkpoint_and_says_what_the_others_took(workplace):
    settings = (*QUICK, "training.num_steps=4", "checkpoints.every_steps=1")
    ended = train(workplace, "run.toml", settings=settings)
    kept = workplace.path / "runs" / "run" / "checkpoints"
    assert [path.name for path in kept.iterdir()] == ["step-000004"]
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) / 1000
    (line,) = [line for line in ended.out.splitlines() if line.startswith("checkpoints")]
    # The first two are removed while the run goes on: `keep` is 2.
    said = re.escape(f"runs/run/checkpoints/step-000004 ({size:.1f} kB); 1 older one removed (")
    # The clocks in a checkpoint have as many digits as it happens.
    assert (removed := re.search(rf"{said}([0-9.]+) kB\)$", line)) and float(removed[1]) == pytest.approx(size, abs=0.3)
    assert (
        train(workplace, "run.toml", "--folder", "two", settings=(*settings, "checkpoints.keep_at_end=2")).status == 0
    )
    names = sorted(path.name for path in (workplace.path / "two" / "checkpoints").iterdir())
    assert names == ["step-000003", "step-000004"]


def test_a_run_goes_on_and_is_evaluated_from_any_directory(workplace, monkeypatch):
    rows = [{"question": f"Say {number}", "answer": str(number)} for number in range(8)]
    workplace.write("problems.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(workplace.model, workplace.path / "models" / "tiny")
    named = (
        "task.kind=file",
        "task.path=problems.jsonl",
        "task.reward=python:my_reward.digits",
        "model.path=models/tiny",
    )
    plain = tuple(each for each in QUICK if "save_model" not in each)
    assert train(workplace, "run.toml", settings=(*plain, *named, "training.num_steps=1")).status == 0
    elsewhere = workplace.path / "runs" / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    sys.modules.pop("my_reward", None)
    resumed = workplace.klimb("train", "--resume", "../run", "--set", "training.num_steps=2")
    assert resumed.status == 0, resumed.err
    assert "numbers    ../run/summary.json" in resumed.out
    assert Path.cwd() == elsewhere
    stored = json.loads(Path("../run/config.json").read_text())
    assert (stored["task"]["path"], stored["model"]["path"]) == ("problems.jsonl", "models/tiny")
    evaluated = workplace.klimb("eval", "../run", "--output", "result.json")
    assert evaluated.status == 0, evaluated.err
    assert (elsewhere / "result.json").is_file()


def test_a_project_that_was_moved_still_finds_its_files(workplace, run, monkeypatch):
    moved = workplace.path.parent / f"{workplace.path.name}-moved"
    moved.mkdir()
    for name in ("runs", "my_reward.py", "run.toml"):
        (workplace.path / name).rename(moved / name)
    monkeypatch.chdir(workplace.path)
    resumed = train(workplace, "--resume", str(moved / "runs" / "run"), settings=(*QUICK, "training.num_steps=3"))
    assert resumed.status == 0, resumed.err


def test_a_run_moved_alone_takes_its_files_from_the_present_directory(workplace, run, tmp_path_factory):
    alone = tmp_path_factory.mktemp("alone") / "run"
    shutil.move(run, alone)
    assert train(workplace, "--resume", str(alone), settings=(*QUICK, "training.num_steps=3")).status == 0


def test_a_path_given_at_a_resume_is_taken_from_where_it_was_typed(workplace, monkeypatch):
    rows = [{"question": f"Say {number}", "answer": str(number)} for number in range(8)]
    workplace.write("problems.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    named = ("task.kind=file", "task.path=problems.jsonl", "training.num_steps=1")
    assert train(workplace, "run.toml", settings=(*QUICK, *named)).status == 0
    elsewhere = workplace.path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(workplace.path / "problems.jsonl", elsewhere / "problems.jsonl")
    monkeypatch.chdir(elsewhere)
    sys.modules.pop("my_reward", None)
    resumed = workplace.klimb(
        "train", "--resume", "../runs/run", "--set", "training.num_steps=2", "task.path=problems.jsonl"
    )
    assert resumed.status == 0, resumed.err
    stored = json.loads((workplace.path / "runs" / "run" / "config.json").read_text())
    assert stored["task"]["path"] == str(elsewhere / "problems.jsonl")


def test_of_runs_that_start_with_one_name_at_one_moment_each_has_a_folder_of_its_own(tmp_path: Path, monkeypatch):
    config = build_config({"seed": 7}, source="")
    gate, made, real = threading.Barrier(4), list[Path](), run_folder_module.free_folder

    def slowly(path: Path) -> Path:
        found = real(path)
        threading.Event().wait(0.01)
        return found

    monkeypatch.setattr(run_folder_module, "free_folder", slowly)

    def start() -> None:
        gate.wait()
        made.append(new_run_folder(tmp_path / "runs" / "sums", config, is_numbered=True).path)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in made) == ["sums", "sums-2", "sums-3", "sums-4"]
    assert all((path / "provenance.json").is_file() for path in made)


def test_of_two_runs_that_want_one_empty_folder_one_has_it(tmp_path: Path):
    assert claim_folder(tmp_path, is_numbered=False) == tmp_path
    with pytest.raises(ConfigError, match="already exists and is not empty"):
        claim_folder(tmp_path, is_numbered=False)


def test_moving_aside_never_takes_a_name_that_another_has_just_made(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").touch()
    (tmp_path / "run-1").mkdir()
    assert move_aside(tmp_path / "run") == tmp_path / "run-2"


def test_where_nothing_can_be_written_a_run_neither_begins_nor_goes_on(workplace, run, monkeypatch):
    outcome = workplace.klimb("train", "run.toml", "--folder", "/proc/klimb/run")
    assert "a run cannot be kept in /proc/klimb/run" in one_line(outcome)
    real = os.open

    def refuse(path, flags, *rest, **more):
        if str(path).endswith("lock") and flags & os.O_CREAT:
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    before = snapshot(run)
    message = one_line(workplace.klimb("train", "--resume", "runs/run"))
    assert "runs/run cannot be written (Read-only file system)" in message
    assert snapshot(run) == before

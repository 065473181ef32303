"""`klimb compare` as it is typed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.workbench.study.tiny_study import STUDY

PROGRAM = "import sys; from klimb.workbench.cli import run_command; sys.exit(run_command(sys.argv[1:]))"


def study_file(workplace, *, amount: int = 40, more: str = "") -> Path:
    return workplace.write("tiny.toml", STUDY.format(model=str(workplace.model), amount=amount) + more)


def test_a_study_goes_from_its_file_to_a_page_tables_and_figures(workplace):
    study_file(workplace)
    outcome = workplace.klimb("compare", "tiny.toml")
    assert outcome.status == 0, outcome.err
    folder = workplace.path / "studies" / "tiny"
    assert {"report.html", "tables", "figures", "study.toml", "study.json"} <= {path.name for path in folder.iterdir()}
    assert (folder / "study.toml").read_text() == (workplace.path / "tiny.toml").read_text()
    assert json.loads((folder / "study.json").read_text())["command"] == "klimb compare tiny.toml"
    assert "rloo" in outcome.out and "page       studies/tiny/report.html" in outcome.out
    again = workplace.klimb("compare", "tiny.toml", "--report-only")
    assert again.status == 0 and "runs to do" not in again.out


@pytest.mark.parametrize("named", [("runs/a", "runs/b"), ("runs/a",), ("quick", "tiny.toml")])
def test_runs_and_several_studies_are_refused_with_the_command_that_takes_runs(workplace, named):
    (workplace.path / "runs" / "a").mkdir(parents=True)
    outcome = workplace.klimb("compare", *named)
    assert outcome.status == 2 and "Traceback" not in outcome.err
    words = " ".join(outcome.err.split())
    assert f"klimb compare takes one study, a TOML file or the name of a ready one; got {' '.join(named)}." in words
    assert "klimb report RUN RUN" in words and "klimb board" in words


@pytest.mark.slow
def test_more_seeds_are_a_second_look_and_the_report_says_so(workplace):
    file = study_file(workplace)
    assert "Look 2" not in workplace.klimb("compare", "tiny.toml").out
    assert "Look 2" not in workplace.klimb("compare", "tiny.toml", "--report-only").out
    file.write_text(file.read_text().replace("seeds = 2", "seeds = 3"))
    outcome = workplace.klimb("compare", "tiny.toml")
    assert outcome.status == 0, outcome.err
    said = "Look 2 at this study, at 3 seeds after 2"
    folder = workplace.path / "studies" / "tiny"
    assert said in " ".join(outcome.out.split()) and said in (folder / "report.html").read_text()
    assert said in (folder / "tables" / "comparisons.md").read_text()
    assert [look["seeds"] for look in json.loads((folder / "looks.json").read_text())["looks"]] == [2, 3]


def test_a_dry_run_shows_the_matrix_and_makes_nothing(workplace):
    study_file(workplace)
    outcome = workplace.klimb("compare", "tiny.toml", "--dry-run", "--jobs", "3", "--only", "rloo")
    assert outcome.status == 0, outcome.err
    assert "3 at a time" in outcome.out
    assert "runs    2: 2 missing" in outcome.out
    assert "unknown until a run has finished" in outcome.out
    assert matrix_of(outcome.out) == {"rloo": "0 of 2"}
    assert not (workplace.path / "studies").exists()


def test_a_dry_run_of_a_begun_study_tells_what_is_left_and_how_long_it_takes(workplace):
    study_file(workplace)
    first = workplace.path / "studies" / "tiny" / "runs" / "sums"
    assert workplace.klimb("compare", "tiny.toml", "--only", "rloo", "--jobs", "1").status == 0
    (first / "rloo" / "seed-1" / "summary.json").unlink()
    summary = json.loads((first / "rloo" / "seed-0" / "summary.json").read_text())
    summary["seconds"]["total"] = 600.0
    (first / "rloo" / "seed-0" / "summary.json").write_text(json.dumps(summary))
    outcome = workplace.klimb("compare", "tiny.toml", "--dry-run", "--jobs", "1")
    assert matrix_of(outcome.out) == {"grpo, baseline": "0 of 2", "rloo": "1 of 2"}
    assert "about 30:00: 3 runs of 10:00 each" in outcome.out
    assert "interrupted  sums/rloo/seed-1" in outcome.out and "missing      sums" not in outcome.out


def matrix_of(text):
    """Method -> finished of all."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("finished of all"))
    rows = [line.rstrip() for line in lines[at + 1 :] if " of " in line]
    return {row[:-6].rstrip(): row[-6:] for row in rows}


def test_compare_without_a_study_lists_the_ready_ones(workplace):
    outcome = workplace.klimb("compare")
    assert outcome.status == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["ablations", "headline", "smoke"]


@pytest.mark.parametrize(
    ("arguments", "more", "said"),
    [
        (["--only", "ppo"], "", "--only ppo: the study's methods are grpo, rloo"),
        (["--jobs", "0"], "", "--jobs must be at least 1, got 0"),
        ([], "[methods.own.objective]\nrecipe = 'grpo'\ndivergence = 'python:nowhere.f'\nbeta = 0.1\n", "sums/own"),
        ([], "[tasks.empty.task]\nheld_out_fraction = 0.0\n", "a study needs both"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is_made(workplace, arguments, more, said):
    study_file(workplace, more=more)
    outcome = workplace.klimb("compare", "tiny.toml", *arguments)
    assert outcome.status == 2
    assert said in outcome.err
    assert not (workplace.path / "studies").exists()


def test_a_folder_that_holds_something_else_is_left_alone(workplace):
    study_file(workplace)
    (workplace.path / "mine").mkdir()
    (workplace.path / "mine" / "thesis.txt").write_text("years of work")
    outcome = workplace.klimb("compare", "tiny.toml", "--folder", "mine")
    assert outcome.status == 2 and "holds no study" in outcome.err
    assert [path.name for path in (workplace.path / "mine").iterdir()] == ["thesis.txt"]


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_when_a_compare_ends_its_runs_end_and_the_same_command_goes_on(workplace, number: int, status: int):
    study_file(workplace, amount=2000)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "compare", "tiny.toml", "--jobs", "2", "--only", "grpo"],
        cwd=workplace.path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    runs = [workplace.path / "studies" / "tiny" / "runs" / "sums" / "grpo" / f"seed-{seed}" for seed in (0, 1)]
    wait_until(lambda: all((run / "metrics.jsonl").exists() for run in runs), "no run began")
    workers = [json.loads((run / "status.json").read_text())["pid"] for run in runs]
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "a run outlived its compare")
    assert all(list((run / "checkpoints").glob("step-*")) for run in runs)
    if number == signal.SIGINT:
        assert "go on with  klimb compare tiny.toml" in out
    outcome = workplace.klimb("compare", "tiny.toml", "--only", "grpo")
    assert outcome.status == 0, outcome.err
    assert all((run / "summary.json").exists() for run in runs)

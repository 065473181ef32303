import json
import logging
import re
from html import unescape
from pathlib import Path

import pytest
from tests.ui.pages.folders import write_run
from tests.workbench.conftest import Workplace

from klimb.training.run_folder import RunFolder
from klimb.ui.pages import files
from klimb.ui.pages.files import report_at_the_end


def test_a_run_ends_with_a_report_of_itself(workplace: Workplace):
    outcome = workplace.klimb("train", "run.toml", "--set", "run.report=true")
    page = (workplace.path / "runs" / "run" / "report.html").read_text(encoding="utf-8")
    assert (outcome.status, "runs/run/report.html" in outcome.out) == (0, True)
    assert "finished" in page
    assert "reward_mean" in page


def test_a_run_without_a_report_was_asked_for_has_none(workplace: Workplace):
    assert workplace.klimb("train", "run.toml", "--set", "run.report=false").status == 0
    assert not (workplace.path / "runs" / "run" / "report.html").exists()


def test_a_report_that_fails_is_logged_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(records: object, found: object) -> str:
        raise ZeroDivisionError("a defect of the page")

    monkeypatch.setattr(files, "report_page", broken)
    path = write_run(tmp_path / "run")
    with caplog.at_level(logging.ERROR):
        assert report_at_the_end(RunFolder(path)) is None
    assert "the run is complete, but its report could not be made" in caplog.text
    assert "a defect of the page" in caplog.text
    assert not RunFolder(path).report.exists()


def test_the_command_prints_findings_and_writes_page_figures_and_tables(workplace: Workplace):
    write_run(workplace.path / "a", num_steps=8)
    outcome = workplace.klimb("report", "a", "--csv", "tables")
    assert (outcome.status, outcome.err) == (0, "")
    assert "a/report.html" in outcome.out
    assert "3 files in tables" in outcome.out
    assert (workplace.path / "a" / "report.html").exists()


ENDING = {
    "kind": "error",
    "during": "training",
    "reason": "ScoringError: no response could be scored",
    "step": 0,
    "is_saved": True,
    "resumes_from": 0,
    "time": "2026-01-01T00:00:00Z",
}


def test_of_a_run_that_an_error_ended_the_reason_and_the_way_on_are_told(workplace: Workplace):
    run = write_run(workplace.path / "my run", num_steps=0, is_finished=False)
    (run / "ending.json").write_text(json.dumps(ENDING))
    outcome = workplace.klimb("report", "my run")
    assert outcome.status == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    for told in (outcome.out, unescape(re.sub("<[^>]+>", "", page))):
        assert "The run ended with an error in step 1" in told
        assert "ScoringError: no response could be scored" in told
        assert "klimb train --resume 'my run'" in told
    assert "no findings" not in outcome.out
    assert "ended with an error: 0 steps so far" in page and ">not finished" not in page


def test_an_ending_that_no_run_wrote_ends_no_report(workplace: Workplace):
    run = write_run(workplace.path / "run", is_finished=False)
    for content in ("", "[]", "{}", json.dumps({**ENDING, "step": "two"}), json.dumps({**ENDING, "kind": "whim"})):
        (run / "ending.json").write_text(content)
        outcome = workplace.klimb("report", "run")
        assert outcome.status == 0 and "ended with an error" not in outcome.out


def test_several_runs_make_one_page_here(workplace: Workplace):
    for seed in (0, 1):
        write_run(workplace.path / str(seed), seed=seed)
    assert workplace.klimb("report", "0", "1").status == 0
    assert workplace.klimb("report", "0", "1").status == 0, "an earlier report is replaced"
    assert "2 runs of 1 setting<" in (workplace.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "--output", "notes.html"), "notes.html is there already and no page of klimb report"),
        (("a", "./a"), "a run is named twice"),
        (("empty",), "empty holds no run"),
    ],
)
def test_what_cannot_be_done_is_refused_and_writes_nothing(
    workplace: Workplace, arguments: tuple[str, ...], words: str
):
    write_run(workplace.path / "a")
    notes = workplace.write("notes.html", "<!DOCTYPE html>mine")
    (workplace.path / "empty").mkdir()
    outcome = workplace.klimb("report", *arguments)
    assert (outcome.status, words in outcome.err) == (2, True)
    assert notes.read_text(encoding="utf-8") == "<!DOCTYPE html>mine"
    assert not (workplace.path / "a" / "report.html").exists()

"""Rules of the user's own: their findings stand in the report, and one that fails says so."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.findings.run.synthetic import ramp, record
from tests.ui.pages.folders import write_run
from tests.workbench.conftest import Workplace

from klimb.findings.finding import Finding
from klimb.findings.run.rules import find
from klimb.findings.run.thresholds import THRESHOLDS, Thresholds
from klimb.workbench.config import build_config
from klimb.workbench.own_findings import find_in
from klimb.workbench.session import make_loop_settings

OWN = '''
from klimb.findings.finding import Finding

def slow(record, thresholds):
    """Every run has this one."""
    return Finding(status="bad", title="Steps are slow", evidence=f"{record.num_steps} steps.", metrics=("loss",))

def named(record, thresholds):
    return Finding(name="house-rule", status="note", title="A rule of the house", evidence="It holds.")

def silent(record, thresholds):
    return None

def broken(record, thresholds):
    return record.rows[10_000]

def wordless(record, thresholds):
    return "Steps are slow"

number = 3
'''

SLOW, NAMED, BROKEN = (f"python:my_findings.{name}" for name in ("slow", "named", "broken"))


@pytest.fixture
def own(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    workplace.write("my_findings.py", OWN)
    yield workplace
    sys.modules.pop("my_findings", None)


def page_of(path: Path) -> str:
    return " ".join((path / "report.html").read_text(encoding="utf-8").split())


def test_a_rule_of_ones_own_gets_the_record_and_the_thresholds_and_its_finding_is_sorted_in():
    seen: list[object] = []

    def rule(given: object, thresholds: Thresholds) -> Finding:
        seen.extend((given, thresholds))
        return Finding(status="bad", title="Mine", evidence="It is.")

    of_run = record({"reward_mean": ramp(0.0, 0.5)})
    theirs = find(of_run)
    found = find(of_run, own={"python:a.rule": rule})
    assert seen == [of_run, THRESHOLDS]
    assert [finding.status for finding in theirs] == ["good"]
    assert [(finding.name, finding.status) for finding in found] == [("python:a.rule", "bad"), (theirs[0].name, "good")]
    assert found[1:] == theirs


def finding_with(field: str, value: object) -> Finding:
    """A finding that holds what the types forbid: outside of tests nobody checks them."""
    made = Finding(status="note", title="Mine", evidence="It is.")
    object.__setattr__(made, field, value)
    return made


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        ("Steps are slow", "TypeError: expected a klimb.findings.finding.Finding or None, got str"),
        (finding_with("status", "awful"), "ValueError: the status of a finding is one of bad, warning"),
        (finding_with("evidence", 3), "TypeError: what a finding says is text, got 3"),
    ],
)
def test_what_is_no_finding_is_a_finding_that_says_so(answer: Any, evidence: str):
    (found,) = (
        one for one in find(record({}), own={"python:a.rule": lambda *_: answer}) if one.name == "python:a.rule"
    )
    assert found.status == "unknown" and found.evidence.startswith(evidence)


def test_a_run_ends_with_its_own_findings_in_its_report(own: Workplace):
    names = f"run.findings=['{SLOW}', '{NAMED}', 'python:my_findings.silent']"
    outcome = own.klimb("train", "run.toml", "--set", "run.report=true", names)
    assert outcome.status == 0, outcome.err
    page = page_of(own.path / "runs" / "run")
    assert "Steps are slow" in page and "3 steps." in page and SLOW in page
    assert "A rule of the house" in page and "house-rule" in page
    assert "docs/findings.md, python" not in page and "docs/findings.md, house-rule" not in page
    shown = own.klimb("report", "runs/run").out
    assert "Steps are slow" in shown and "house-rule" in shown


def test_a_rule_that_fails_is_named_and_the_rest_stands(own: Workplace):
    write_run(own.path / "a", num_steps=8)
    shown = own.klimb("report", "a", "--findings", BROKEN, SLOW)
    assert shown.status == 0, shown.err
    page = page_of(own.path / "a")
    for text in (shown.out, page):
        assert f"{BROKEN} could not be asked" in text and "IndexError: tuple index out of range" in text
        assert "Steps are slow" in text


def test_a_run_whose_rule_is_not_there_any_more_says_so_in_its_report():
    of_run = record({"reward_mean": ramp(0.0, 0.5)}, config={"run": {"findings": ["python:no_such_file.rule"]}})
    missing, *rest = find_in(of_run)
    assert (missing.name, missing.status) == ("python:no_such_file.rule", "unknown")
    assert "there is no module 'no_such_file'" in missing.evidence
    assert tuple(rest) == find(of_run)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:no_such_file.rule", "run.findings = 'python:no_such_file.rule': there is no module 'no_such_file'"),
        ("python:my_findings.typo", "the module my_findings has no 'typo'"),
        ("python:my_findings.number", "expected a function of (record, thresholds) that returns"),
        ("slow", "run.findings = 'slow': expected a list of 'python:module.name'"),
    ],
)
def test_a_rule_that_cannot_be_is_told_before_anything_is_made(own: Workplace, name: str, message: str):
    outcome = own.klimb("train", "run.toml", "--set", f"run.findings=['{name}']")
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err
    assert not (own.path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("slow", "--findings takes rules of your own such as python:my_parts.my_finding, got 'slow'"),
        ("python:my_findings.typo", "--findings = 'python:my_findings.typo': the module my_findings has no 'typo'"),
    ],
)
def test_the_command_takes_rules_that_are_there(own: Workplace, name: str, message: str):
    write_run(own.path / "a", num_steps=8)
    outcome = own.klimb("report", "a", "--findings", name)
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err


def test_a_module_that_cannot_be_imported_is_told_with_its_line(own: Workplace):
    own.write("my_findings.py", "first = 1\nsecond = 1 / 0\n")
    outcome = own.klimb("train", "run.toml", "--set", f"run.findings=['{SLOW}']")
    assert outcome.status == 2
    assert "my_findings cannot be imported: ZeroDivisionError: division by zero (my_findings.py, line 2)" in outcome.err


def test_findings_and_loggers_are_no_part_of_the_runs_identity():
    config = build_config({"run": {"findings": [SLOW], "loggers": ["python:my_loggers.one"]}}, source="")
    assert make_loop_settings(config).own_parts == {}

"""Rules of the user's own, `run.findings`: what they find in a run stands among what klimb's rules find."""

from collections.abc import Iterable
from functools import partial

from klimb.findings.finding import Finding
from klimb.findings.run.record import RunRecord
from klimb.findings.run.rules import find
from klimb.findings.run.thresholds import Thresholds
from klimb.own_parts import load_function
from klimb.workbench.run_directory import in_directory_of

EXPECTED = "a function of (record, thresholds) that returns a klimb.findings.finding.Finding or None"


def check_findings(names: Iterable[str], *, setting: str = "run.findings") -> None:
    """Return if these rules of the user's own are there.

    Raises:
        ConfigError: one is not, or it cannot be called.
    """
    for name in names:
        load_function(name, setting=setting, expected=EXPECTED)


def find_in(record: RunRecord, more: Iterable[str] = ()) -> tuple[Finding, ...]:
    """Return what klimb's rules find in a run, and the rules that its configuration names, and `more` of them.

    One that is not there any more, or that fails, is a finding that says so.
    """
    names = dict.fromkeys((*record.setting("run.findings", ()), *more))
    if not names:
        return find(record)
    with in_directory_of(record.folder, {"run": {str(number): name for number, name in enumerate(names)}}):
        return find(record, own={name: partial(_ask, name) for name in names})


def _ask(name: str, record: RunRecord, thresholds: Thresholds) -> Finding | None:
    return load_function(name, setting="run.findings", expected=EXPECTED)(record, thresholds)

"""What the guard did is written down as findings, and read back as they were."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from klimb.findings.finding import Finding
from klimb.findings.guard.events import GuardEvent, event_from, events_of, in_one_sentence
from klimb.findings.guard.thresholds import THRESHOLDS
from klimb.findings.run.thresholds import THRESHOLDS as OF_A_RUN
from klimb.findings.tables import with_tables

DOCS = Path(__file__).parents[3] / "docs"
FINDING = Finding(
    name="guard/perplexity",
    status="warning",
    title="perplexity rose",
    evidence="31.25 now, 20 before training",
    threshold="at most 1.2 times the perplexity before training",
    source="guard.max_perplexity_ratio",
    number=31.25,
    limit=24.0,
)
EVENT = GuardEvent(step=40, action="rollback", finding=FINDING, to_step=30)


@pytest.mark.parametrize("event", [EVENT, replace(EVENT, action="warn", to_step=None)])
def test_an_event_comes_back_from_json_as_it_was(event: GuardEvent):
    assert event_from(json.loads(json.dumps(event.row()))) == event


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_null_in_the_file_and_unknown_when_read(number: float):
    row = replace(EVENT, finding=replace(FINDING, number=number)).row()
    assert row["number"] is None
    assert event_from(row) == replace(EVENT, finding=replace(FINDING, number=None))


@pytest.mark.parametrize("row", ["text", None, {}, {"title": "no step"}, {"step": "4"}])
def test_what_has_no_step_is_no_event(row: object):
    assert events_of({"events": [row, EVENT.row()]}) == (EVENT,)


@pytest.mark.parametrize("guard", [{}, {"events": None}, {"events": "text"}])
def test_a_file_without_events_has_none(guard: dict[str, object]):
    assert events_of(guard) == ()


def test_one_sentence_tells_what_was_found_how_one_can_tell_and_what_is_allowed_by_which_key():
    assert in_one_sentence(FINDING) == (
        "perplexity rose (31.25 now, 20 before training); allowed: at most 1.2 times the perplexity before training "
        "(guard.max_perplexity_ratio)"
    )
    assert in_one_sentence(replace(FINDING, evidence="", threshold="")) == "perplexity rose"


def test_the_rules_of_a_run_hold_it_to_what_the_guard_does_by_default():
    assert OF_A_RUN.perplexity_ratio == THRESHOLDS.max_perplexity_ratio
    assert OF_A_RUN.general_drop == THRESHOLDS.max_general_drop


@pytest.mark.parametrize("page", ["guard.md", "studies.md", "audit.md"])
def test_the_tables_of_thresholds_are_those_of_the_rows(page: str):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert with_tables(text) == text, f"run: python -m klimb.findings.tables docs/{page}"

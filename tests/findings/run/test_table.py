import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.findings.run.synthetic import evaluation, flat, keys, record

from klimb.findings.finding import STATUSES
from klimb.findings.run.evidence import correlation, runs_of_steps
from klimb.findings.run.rules import RULES, find
from klimb.findings.run.thresholds import THRESHOLDS, Thresholds
from klimb.findings.statistics.trends import trend_of
from klimb.findings.tables import with_tables
from klimb.findings.thresholds import Threshold, rows_of
from klimb.ui.text import printable

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "findings.md").read_text(encoding="utf-8")
METRICS = (DOCS / "metrics.md").read_text(encoding="utf-8")
READ = sorted({name for rule in RULES for name in rule.metrics} | {"step", "epoch", "num_groups", "truncated_fraction"})


def headings(text: str) -> set[str]:
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_page_has_a_section_for_every_rule_in_the_order_of_the_table():
    sections = [heading for heading in re.findall(r"^### `([^`]+)`", PAGE, re.MULTILINE)]
    assert sections == [rule.key for rule in RULES]


def test_the_table_of_thresholds_is_that_of_the_rows():
    assert with_tables(PAGE) == PAGE, "run: python -m klimb.findings.tables docs/findings.md"


@pytest.mark.parametrize(("name", "row"), rows_of(Thresholds).items(), ids=list(rows_of(Thresholds)))
def test_the_page_lists_every_threshold_with_value_unit_and_source(name: str, row: Threshold):
    assert row.unit and row.source
    assert f"| `{name}` | {row.value:g} | {row.unit} | {row.source} |" in PAGE


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_a_rule_links_to_a_heading_that_explains_its_metrics(rule):
    assert rule.heading in headings(METRICS)
    for name in rule.metrics:
        assert f"`{name.partition('/')[2] if name.startswith(('replay/', 'log/')) else name}`" in METRICS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_a_rule_is_silenced_only_by_rules_that_are_asked_before_it(rule):
    earlier = [other.key for other in RULES[: RULES.index(rule)]]
    assert set(rule.unless) <= set(earlier)


def test_findings_come_with_the_worst_first():
    run = record(
        {"kl_pi_ref": flat(5.0), "accuracy": flat(0.95), "num_errors": flat(9.0), "num_samples": flat(90.0)},
        evaluations=[evaluation("before", [[0.0]] * 9), evaluation("after", [[1.0]] * 9, step=20)],
    )
    order = [STATUSES.index(finding.status) for finding in find(run)]
    assert order == sorted(order) and set(order) == {0, 1, 4}


def test_thresholds_can_be_given():
    run = record({"kl_pi_ref": flat(0.2)})
    assert keys(run) == ["kl-blow-up"]
    assert keys(run, replace(THRESHOLDS, kl=0.3)) == []


@pytest.mark.parametrize("change", [{"kl": math.nan}, {"kl": -1.0}, {"window_share": 0.6}, {"min_window_steps": 0}])
def test_thresholds_that_mean_nothing_are_refused(change: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(THRESHOLDS, **change)


number = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(READ), number), max_size=12))
def test_no_row_however_broken_stops_the_rules(rows: list[dict[str, float | None]]):
    run = replace(record(), rows=tuple(rows))
    for finding in find(run):
        assert printable(finding.evidence, limit=2000) == finding.evidence


def test_a_run_that_has_not_begun_has_no_findings():
    assert find(record(config={})) == ()


def test_kendalls_tau_of_five_rising_values_is_one_with_the_exact_p():
    trend = trend_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert trend.tau == pytest.approx(1.0)
    assert trend.p == pytest.approx(2 / math.factorial(5))


def test_a_constant_has_no_trend_and_no_correlation():
    assert trend_of([1.0] * 9).p == 1.0
    assert correlation([1.0] * 9, list(range(9))) == 0.0


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "no step"),
        ([4], "step 4"),
        ([3, 4, 5, 8], "steps 3 to 5, 8"),
        ([1, 3, 5, 7, 9], "steps 1, 3, 5 and 2 more"),
    ],
)
def test_steps_are_told_in_runs(steps: list[int], words: str):
    assert runs_of_steps(steps) == words

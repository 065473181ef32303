"""Each logged number is one row; the document, the charts and the way numbers are merged follow from the rows."""

from pathlib import Path

import pytest

from klimb.findings.metrics import METRICS, TABLES, Metric, explain, metric_named
from klimb.findings.metrics.of_losses import CORRECTIONS, OBJECTIVE, WITHOUT_RATIO
from klimb.findings.tables import markdown_table, with_tables
from klimb.training.update import StepOutcome, merge_metrics
from klimb.ui.panels import SECTIONS

DOCS = Path(__file__).parents[2] / "docs"
MERGED = [metric for metric in METRICS if metric.aggregate != "once"]


def test_the_tables_of_metrics_are_those_of_the_rows():
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert with_tables(page) == page, "run: python -m klimb.findings.tables docs/metrics.md"


def test_the_page_has_every_table_under_its_heading():
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for heading in TABLES:
        text = page.split(f"# {heading}\n")[1].split("\n#")[0]
        assert f"<!-- table: metrics, {heading} -->" in text


def test_no_name_has_two_rows():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", MERGED, ids=lambda metric: metric.name)
def test_numbers_of_several_optimizer_steps_are_merged_as_the_row_says(metric: Metric):
    outcomes = [StepOutcome({metric.name: 1.0}, num_tokens=1), StepOutcome({metric.name: 5.0}, num_tokens=3)]
    expected = {"mean": 4.0, "sum": 6.0, "max": 5.0}[metric.aggregate]
    assert merge_metrics(outcomes) == {metric.name: expected}


def test_what_an_objective_logs_is_merged():
    assert [metric.name for metric in (*OBJECTIVE, *CORRECTIONS, *WITHOUT_RATIO) if metric.aggregate == "once"] == []


def test_every_panel_draws_a_metric_and_every_metric_names_a_panel_that_there_is():
    panels = [panel for section in SECTIONS for panel in section.panels]
    assert [panel.title for panel in panels if not panel.metrics] == []
    titles = [panel.title for panel in panels]
    assert [metric.name for metric in METRICS if metric.panel and titles.count(metric.panel) != 1] == []


def test_a_panel_without_the_label_of_its_curve_is_refused():
    with pytest.raises(ValueError, match="go together"):
        Metric(name="x", unit="1", formula="x", panel="Entropy")


def test_a_row_is_found_by_name_pattern_and_behind_a_source():
    assert metric_named("log/w_p99") == metric_named("w_p99")
    assert metric_named("reward_part_style") == metric_named("reward_part_*")
    assert metric_named("no such metric") is None


def test_no_row_points_at_the_row_above_it():
    texts = [text for metric in METRICS for text in (metric.formula, metric.healthy, metric.outside)]
    assert [text for text in texts if text.startswith("as above")] == []


def test_metrics_of_one_row_are_explained_once_in_the_order_of_the_document():
    rows = explain(["evaluation_pass_at_4", "entropy", "evaluation_pass_at_2", "unknown", "kl_pi_ref"])
    assert list(rows.values()) == [["kl_pi_ref"], ["entropy"], ["evaluation_pass_at_2", "evaluation_pass_at_4"]]


def test_a_bar_inside_of_a_cell_does_not_end_it():
    assert markdown_table(("a", "b"), [("|Δ|", "")]) == "| a | b |\n|---|---|\n| \\|Δ\\| | |"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("# Metrics", "the page has no lines"),
        ("<!-- table: metrics, Nothing -->\n<!-- /table -->", "there is no table 'metrics, Nothing'"),
    ],
)
def test_a_page_without_places_for_its_tables_is_an_error(page: str, message: str):
    with pytest.raises(ValueError, match=message):
        with_tables(page)

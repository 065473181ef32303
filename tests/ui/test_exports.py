import csv
import json
from pathlib import Path

import pytest
from tests.ui.pages.folders import BEFORE, evaluation, problem, write_run

from klimb.training.run_folder import read_run
from klimb.ui.chart import Chart, Curve
from klimb.ui.csv_export import as_cell, write_csv
from klimb.ui.figures import chart_figure, write_figures
from klimb.ui.grouping import group_runs


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_each_step_evaluation_and_problem_beside_its_run(tmp_path: Path):
    records = [read_run(write_run(tmp_path / f"run-{seed}", seed=seed, num_steps=3)) for seed in (0, 1)]
    metrics, evaluations, problems = write_csv(group_runs(records), tmp_path / "tables")
    steps = rows_of(metrics)
    assert [(row["run"], row["seed"], row["step"]) for row in steps] == [
        (f"run-{seed}", str(seed), str(step)) for seed in (0, 1) for step in (1, 2, 3)
    ]
    assert [row["grad_norm"] == "" for row in steps] == [False, True, False] * 2
    assert [row["pass_at_2"] for row in rows_of(evaluations)[:1]] == [str(BEFORE.pass_at["2"])]
    assert [(row["problem_id"], row["mean"]) for row in rows_of(problems)[:3]] == [
        ("1+1", "0.0"),
        ("2+2", "1.0"),
        ("0+9", "0.5"),
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_a_text_that_a_spreadsheet_would_run_is_made_inert(text: str):
    assert as_cell(text) == f"'{text}"


def test_numbers_and_other_texts_stay_as_they_are():
    assert [as_cell(value) for value in (-1.5, None, "a=b", "")] == [-1.5, None, "a=b", ""]


def test_a_hostile_question_and_metric_are_inert_in_the_tables(tmp_path: Path):
    made = evaluation("before", 0, [problem('=HYPERLINK("http://evil.example")\n"x', [1])])
    path = write_run(tmp_path / "run", num_steps=1, evaluations=(made,))
    row = json.loads((path / "metrics.jsonl").read_text())
    (path / "metrics.jsonl").write_text(json.dumps(row | {"=evil": 1}) + "\n")
    metrics, _, problems = write_csv(group_runs([read_run(path)]), tmp_path / "tables")
    assert rows_of(metrics)[0]["'=evil"] == "1"
    assert rows_of(problems)[0]["problem_id"] == '\'=HYPERLINK("http://evil.example")\n"x'


def test_figures_are_named_after_their_charts_and_written_twice(tmp_path: Path):
    path = write_run(tmp_path / "run", num_steps=2, evaluations=())
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    few = [{"step": row["step"], "entropy": row["entropy"], "../evil $x": 1.0} for row in rows]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
    written = write_figures(group_runs([read_run(path)]), tmp_path / "figures")
    assert sorted(path.name for path in written) == [
        "other-evil-x.png",
        "other-evil-x.svg",
        "policy-entropy.png",
        "policy-entropy.svg",
    ]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(written)


def test_a_figure_has_the_charts_values_and_takes_no_name_for_a_formula():
    curve = Curve(label="$\\bad$", x=[0, 1], y=[0.1, 0.9], low=[0.0, 0.8], high=[0.2, 1.0])
    figure = chart_figure(Chart(title="$\\frac$", unit="share", curves=(curve, curve), floor=0.0, ceiling=1.0))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 0.1], [1.0, 0.9]]  # type: ignore[union-attr]
    assert axes.get_ylim()[0] <= 0 and axes.get_ylim()[1] >= 1

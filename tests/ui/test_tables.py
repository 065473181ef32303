import csv
import io
import math
from dataclasses import replace

import pytest
from tests.findings.study.made import random_study

from klimb.findings.statistics import Interval
from klimb.findings.study.analysis import analyse
from klimb.findings.study.verdicts import Units, p_text
from klimb.ui.tables import StudyTable, as_csv, as_latex, as_markdown, latex_text, slug, study_tables

HOSTILE = "a|b_<script>&$x$[y](z)*\\%#{}~^"


def table_with(text, *, number=0.5):
    return StudyTable(
        name="t",
        title=text,
        columns=("method", "score"),
        rows=((text, "0.5"),),
        full_columns=("method", "score"),
        full_rows=((text, number),),
    )


@pytest.fixture(scope="module")
def tables():
    found = analyse(random_study({"grpo": 0.4, "good": 0.6}, tasks=("sums", "chains"), num_seeds=3))
    return found, {table.name: table for table in study_tables(found)}


def test_markdown_of_a_hostile_name_is_one_row_of_as_many_cells():
    row = as_markdown(table_with(HOSTILE)).splitlines()[-1]
    assert row.replace("\\|", "").count("|") == 3
    assert "<" not in row and "y\\](z)" in row and "`" not in row.replace("\\`", "")


def test_line_breaks_and_control_characters_stay_out_of_every_format():
    table = table_with("a\nb\x1b[31m\u202ec")
    for text in (as_markdown(table), as_csv(table), as_latex(table)):
        assert "a⏎b[31mc" in text.replace("{[}", "[")


def test_csv_gives_back_every_number_in_full():
    rows = list(csv.reader(io.StringIO(as_csv(table_with(HOSTILE, number=0.1 + 0.2)))))
    assert rows == [["method", "score"], [HOSTILE, "0.30000000000000004"]]


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_texts_that_a_spreadsheet_would_run_are_quoted(start):
    assert next(csv.reader(io.StringIO(as_csv(table_with(f"{start}1+1")).splitlines()[1]))) == [f"'{start}1+1", "0.5"]


def test_csv_leaves_unknown_numbers_empty():
    assert as_csv(table_with("a", number=math.nan)).splitlines()[1] == "a,"


def test_latex_prints_every_special_character():
    assert latex_text("a_b & 5 % #1 $x$ {y}") == r"a\_b \& 5 \% \#1 \$x\$ \{y\}"
    assert latex_text(r"\input~^") == r"\textbackslash{}input\textasciitilde{}\textasciicircum{}"


def test_latex_rows_cannot_become_arguments_of_the_line_break_before():
    assert "\n{[}1] &" in as_latex(table_with("[1]"))
    assert "\n{*}x &" in as_latex(table_with("*x"))


def test_a_file_name_has_no_path_in_it():
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("...") == "unnamed"


def test_tables_of_a_study_cover_tasks_measures_and_the_leader(tables):
    _, by_name = tables
    assert list(by_name) == [
        "main",
        "task-sums",
        "task-chains",
        "comparisons",
        "leader",
        "comparisons-sums",
        "comparisons-chains",
        "comparisons-best",
        "comparisons-auc",
        "comparisons-drop",
        "comparisons-pass-4",
    ]


def test_every_row_has_as_many_cells_as_columns(tables):
    for table in tables[1].values():
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert {len(row) for row in table.full_rows} == {len(table.full_columns)}


def test_main_table_shows_the_statistics_and_the_best_first(tables):
    found, by_name = tables
    main = by_name["main"]
    assert [row[0] for row in main.rows] == ["good", "grpo"]
    first = dict(zip(main.full_columns, main.full_rows[0], strict=True))
    good = next(summary for summary in found.arms if summary.arm.method == "good")
    last = good.scores["last"]
    assert (first["last"], first["last_low"], first["last_high"]) == (last.value, last.low, last.high)
    assert main.rows[0][main.columns.index("last")] == Units(is_percent=True).scores(last)


def test_losing_less_is_ahead_and_more_is_behind(tables):
    found, by_name = tables
    for one, row in zip(found.others["drop"].comparisons, by_name["comparisons-drop"].rows, strict=True):
        assert row[2] == {"higher": "behind", "lower": "ahead", "open": "not distinguishable"}[one.decision]


def test_scores_are_written_in_percent_or_as_rewards():
    interval = Interval(0.5123, 0.48, 0.5449)
    assert Units(is_percent=True).scores(interval) == "51.2 [48.0, 54.5]"
    assert Units(is_percent=False).differences(Interval(-0.0123)) == "−0.012"
    assert Units(is_percent=True).difference(-0.0001) == "0.0"
    assert Units(is_percent=True).score(math.nan) == "–"


def test_p_values_are_written_with_two_digits_down_to_a_smallest():
    assert [p_text(p) for p in (0.0312, 0.5, 0.00001, math.nan)] == ["p = 0.031", "p = 0.50", "p < 0.0001", "–"]


def test_tables_say_who_is_not_ranked_and_what_could_not_be_scored():
    scores = random_study({"grpo": 0.4, "good": 0.6, "third": 0.5}, num_seeds=3)
    runs = [replace(run, status="failed") if (run.method, run.seed) == ("good", 2) else run for run in scores.runs]
    points = [replace(point, num_errors=5) for point in runs[0].evaluations]
    runs[0] = replace(runs[0], evaluations=tuple(points))
    main, *_ = study_tables(analyse(replace(scores, runs=tuple(runs))))
    assert [row[0] for row in main.rows] == ["third", "grpo", "good (not ranked: 1 of 3 runs lost)"]
    for written in (as_markdown(main), as_latex(main)):
        assert "not ranked: 1 of 3 runs lost" in written
        assert "Not scored in the last evaluations, over all tasks: grpo 5 answers, 0 problems." in written
    rows = list(csv.DictReader(io.StringIO(as_csv(main))))
    assert [row["not_ranked"] for row in rows] == ["", "", "1 of 3 runs lost"]
    assert [row["answers_not_scored"] for row in rows] == ["0", "5", "0"]
    assert rows[2]["why_no_interval"] == "2 runs of one task, and 3 are the least for an interval"

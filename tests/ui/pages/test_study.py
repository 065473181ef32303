import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console
from tests.findings.study.made import random_study

from klimb.findings.study.analysis import analyse
from klimb.ui.figures import study_figures, write_study_figures
from klimb.ui.pages.study import study_page
from klimb.ui.terminal.study import print_study
from klimb.workbench.study.publishing import publish

SCRIPT = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Start tags and their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def hostile_study():
    scores = random_study({"grpo": 0.4, SCRIPT: 0.6, "$x_{": 0.5}, settings=("adamw", "<b>"), num_seeds=2)
    runs = tuple(replace(run, failure=SCRIPT + "x" * 100_000) if run.seed else run for run in scores.runs)
    runs = (replace(runs[0], status="failed", failure=f"RuntimeError: {SCRIPT}"), *runs[1:])
    return replace(
        scores, runs=runs, name=SCRIPT, command=f"klimb compare {SCRIPT}", study_file=SCRIPT, notes=(SCRIPT,)
    )


@pytest.fixture(scope="module")
def statistics():
    return analyse(random_study({"grpo": 0.4, "good": 0.6}, tasks=("sums", "chains"), num_seeds=3))


@pytest.fixture(scope="module")
def page(statistics):
    return study_page(statistics, reports={"runs/a/seed-0": "runs/a/seed-0/report.html"})


def test_page_loads_nothing(page):
    tags = Tags(page).found
    assert not [attrs for tag, attrs in tags if tag in ("link", "img", "iframe", "object") or "src" in attrs]
    addresses = [attrs["href"] for tag, attrs in tags if tag == "a"]
    assert addresses and all(address.startswith("#") for address in addresses)
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page


def test_every_link_leads_to_a_section(page):
    tags = Tags(page).found
    ids = {attrs["id"] for _, attrs in tags if "id" in attrs}
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a"} <= ids


def test_ids_are_unique(page):
    ids = [attrs["id"] for _, attrs in Tags(page).found if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_page_says_what_the_statistics_say(page, statistics):
    (one,) = statistics.main.comparisons
    assert one.decision == "higher"
    text = re.sub(r"<[^>]+>", "", page)
    assert f"good is ahead of grpo: +{100 * one.difference.value:.1f} [" in text


def test_hostile_names_and_errors_stay_text():
    page = study_page(analyse(hostile_study()))
    scripts = re.findall(r"<script[^>]*>", page)
    assert scripts == re.findall(r"<script[^>]*>", study_page(analyse(random_study({"grpo": 0.4}, num_seeds=1))))
    assert "<b>" not in page.partition("<body>")[2].partition("<script")[0]
    assert "&lt;script&gt;alert(1)" in page and len(page) < 1_000_000


def test_runs_that_have_a_report_are_linked(statistics):
    runs = tuple(replace(run, folder=f"runs/{run.method}/{run.seed}") for run in statistics.scores.runs)
    found = replace(statistics, scores=replace(statistics.scores, runs=runs))
    page = study_page(found, reports={"runs/good/1": "runs/good/1/report.html"})
    assert page.count('<a href="runs/good/1/report.html">') == 2  # a run of this name on either task


def test_published_study_has_page_tables_and_figures(statistics, tmp_path):
    published = publish(statistics, tmp_path)
    assert published.page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert published.main_table.read_text(encoding="utf-8").count("| good |") == 1
    names = {path.name for path in published.figures.iterdir()}
    assert {"scores.svg", "scores.png", "differences.svg", "profiles.png", "curves-sums.svg"} <= names
    assert len(list(published.tables.iterdir())) == 3 * 11
    for path in published.figures.glob("*.svg"):
        ElementTree.fromstring(path.read_bytes())


def test_figures_of_the_same_study_are_the_same_file(statistics, tmp_path):
    arms = tuple(replace(one, profile=None) for one in statistics.arms)
    small = replace(statistics, curves=(), arms=arms, main=replace(statistics.main, comparisons=()))
    for name in ("a", "b"):
        write_study_figures(small, tmp_path / name)
    written = sorted((tmp_path / "a").glob("*.svg"))
    assert [path.name for path in written] == ["scores.svg"]
    assert all(path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() for path in written)


def test_names_with_dollars_are_not_set_as_mathematics():
    labels = [label.get_text() for label in study_figures(analyse(hostile_study()))["scores"].axes[0].get_yticklabels()]
    assert any(label.startswith(r"\$x_{") for label in labels)


def test_a_study_that_compares_nothing_has_a_page_and_no_forest_plot():
    found = analyse(random_study({"grpo": 0.4}, num_seeds=1))
    assert "There is nothing to compare" in study_page(found)
    assert set(study_figures(found)) == {"scores", "profiles", "curves-sums"}


def test_terminal_shows_the_table_and_the_verdicts(statistics):
    target = io.StringIO()
    print_study(Console(file=target, width=100), statistics)
    shown = target.getvalue()
    assert re.search(r"good +\d\d\.\d \[.*\+\d\d\.\d ahead +6 of 6", shown)
    assert "good is ahead of grpo" in shown


def test_terminal_survives_hostile_names():
    target = io.StringIO()
    scores = hostile_study()
    runs = tuple(replace(run, method="\x1b[31m[red]") if run.method == SCRIPT else run for run in scores.runs)
    print_study(Console(file=target, width=60), analyse(replace(scores, runs=runs)))
    assert "\x1b" not in target.getvalue() and "[31m[red]" in target.getvalue()

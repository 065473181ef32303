"""What is on the page, and that nothing in it acts."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.ui.pages.folders import AFTER, BEFORE, evaluation, problem, write_run

from klimb.findings.evaluations import ProblemRecord
from klimb.findings.run.record import RunRecord
from klimb.training.run_folder import read_run
from klimb.ui.escaping import markdown_html, whole_html
from klimb.ui.grouping import group_runs
from klimb.ui.pages.frame import html_page, is_page_of, json_for_script
from klimb.ui.pages.run import report_page
from klimb.ui.run_charts import held_out_charts

SCRIPT = "<script>window.hacked = 1</script></script><img src=x onerror='window.hacked = 1'>"
LONG_LINE = "x" * 100_000


class Page(HTMLParser):
    """The elements, ids, links and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._script = dict(attrs).get("id") or "code" if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def page_of(*records: RunRecord) -> Page:
    return Page(report_page(records))


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return read_run(write_run(tmp_path / "run"))


@pytest.fixture
def hostile(tmp_path: Path) -> RunRecord:
    """A run whose every text is of an attacker."""
    before, after = (
        replace(
            made,
            problems=(
                ProblemRecord(problem_id=SCRIPT, question=SCRIPT, values=(0.0, 0.0), answers=(SCRIPT, LONG_LINE)),
                ProblemRecord(problem_id="long", question=LONG_LINE, values=(1.0,), answers=(LONG_LINE,)),
                ProblemRecord(
                    problem_id="bidi", question="\u202e\x00\u2028", values=(0.0,), answers=("\x1b[2J\ud800",)
                ),
                ProblemRecord(problem_id="empty", question="", values=(), answers=("",)),
                *made.problems,
            ),
        )
        for made in (BEFORE, AFTER)
    )
    path = write_run(tmp_path / "a<b>&", evaluations=(before, after), recipe=SCRIPT)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    named = [row | {f"reward_part_{SCRIPT}": 1.0, f"x{SCRIPT}": 2.0} for row in rows]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    event = {"step": 1, "to_step": SCRIPT, "number": SCRIPT, "status": SCRIPT}
    event |= dict.fromkeys(("action", "name", "title", "evidence", "threshold", "source"), SCRIPT)
    (path / "guard.json").write_text(json.dumps({"before": {SCRIPT: 1.0}, "events": [event, SCRIPT]}))
    return read_run(path)


def test_texts_of_a_model_neither_act_nor_hide(hostile: RunRecord):
    page = page_of(hostile)
    assert (page.tags.count("script"), "img" in page.tags, "b" in page.tags) == (2, False, False)
    assert "window.hacked = 1" in page.text
    assert "[U+202E][U+0000][U+2028]" in page.text
    assert "[U+001B][2J[U+D800]" in page.text
    assert [name for name, _ in page.attributes if name == "style" or name.startswith("on")] == []


def test_a_line_of_a_hundred_thousand_characters_is_cut_and_counted(hostile: RunRecord):
    page = page_of(hostile)
    assert "x" * 4000 in page.text
    assert "x" * 4001 not in page.text
    assert "of 100,000 characters; 96,000 characters are not on this page" in page.text


def test_what_is_cut_stays_small_even_if_every_character_has_to_be_written_out(tmp_path: Path):
    control = "\x07" * 5_000
    problems = [
        ProblemRecord(problem_id=str(n), question=control, values=(float(n % 2),) * 4, answers=(control,) * 4)
        for n in range(40)
    ]
    flipped = [replace(part, values=tuple(1 - value for value in part.values)) for part in problems]
    made = (evaluation("before", 0, problems), evaluation("after", 8, flipped))
    assert len(report_page([read_run(write_run(tmp_path / "run", evaluations=made))])) < 3_000_000


def test_the_numbers_for_the_pointer_are_json_that_no_name_can_end(hostile: RunRecord):
    block = page_of(hostile).scripts["charts"]
    assert not set("<>&") & set(block)
    labels = {curve["label"] for chart in json.loads(block).values() for curve in chart["curves"]}
    assert SCRIPT in labels


def test_the_policy_names_no_source_but_the_pages_own_hashes(record: RunRecord):
    policy = next(value for value in page_of(record).values("content") if "default-src" in value)
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"
    assert all(directives[name].startswith("'sha256-") for name in ("style-src", "script-src"))
    assert set(directives) == {"default-src", "base-uri", "form-action", "style-src", "script-src"}


def test_every_link_leads_to_a_place_on_the_page_and_ids_are_unique(record: RunRecord, hostile: RunRecord):
    for page in (page_of(record), page_of(record, hostile)):
        ids = page.values("id")
        assert len(ids) == len(set(ids))
        assert {link.removeprefix("#") for link in page.values("href")} <= set(ids)
        assert page.values("src") == []


def test_a_report_shows_all_parts_of_a_run(record: RunRecord):
    text = page_of(record).text
    for part in (
        "Held-out accuracy",
        "Findings",
        "Parts of the reward",
        "Divergence from the reference",
        "Entropy",
        "Length of a response",
        "Clipped, by branch",
        "Effective sample size",
        "Gradient norm",
        "Learning rate",
        "Where the time went",
        "some_other_number",
        "clip.low",
        "0.1.0, commit 0123abc",
        "commit 89abcde with uncommitted changes",
        "torch 2.13.0",
        "What changed per problem",
    ):
        assert part in text, part
    assert "absent None" not in text


def test_what_resumes_changed_stands_before_the_settings_which_are_those_of_the_last_steps(record: RunRecord):
    change = {"step": 2, "key": "optimizer.learning_rate", "old": 0.5, "new": 0.25, "time": "2026-01-02T03:04:05+00:00"}
    text = page_of(replace(record, history=(change,))).text
    assert "Changed at a resume" in text and "Changed at a resume" not in page_of(record).text
    words = "".join(text[text.index("Changed at a resume") :].split())
    assert "isfromthenon2optimizer.learning_rate0.50.25" in words


def test_metrics_are_explained_in_place_with_the_words_of_the_document(record: RunRecord):
    text = page_of(record).text
    assert "the policy dropped tokens" not in text  # w_p01 is not in this run
    assert "Otherwise: falls to 0 early: raise β or clip high, or use fkl" in text


def test_a_run_that_goes_on_and_one_that_has_only_begun_have_a_page(tmp_path: Path):
    unfinished = read_run(write_run(tmp_path / "on", num_steps=3, evaluations=(BEFORE,), is_finished=False))
    assert "not finished: 3 steps so far" in page_of(unfinished).text
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "provenance.json").write_text("{}")
    assert "not finished: 0 steps so far" in page_of(read_run(begun)).text


def test_several_runs_stand_in_one_table_and_share_charts(tmp_path: Path):
    runs = [
        read_run(write_run(tmp_path / f"{recipe}-{seed}", recipe=recipe, seed=seed))
        for recipe in ("grpo", "dapo")
        for seed in (0, 1)
    ]
    page = page_of(*runs)
    assert "4 runs of 2 settings" in page.text
    charts = json.loads(page.scripts["charts"]).values()
    entropies = next(chart for chart in charts if chart["curves"][0]["y"][0] == 1.875)
    assert [curve["label"] for curve in entropies["curves"]] == ["grpo", "dapo"]
    assert all("low" in curve for curve in entropies["curves"])
    assert "by generated tokens" in page.text


def test_a_run_of_a_thousand_steps_makes_a_page_below_three_megabytes(tmp_path: Path):
    problems = [problem(f"{n}+{n}", [n % 2, 1, 0, 1]) for n in range(200)]
    made = [evaluation("during", step, problems) for step in range(0, 1000, 50)]
    path = write_run(tmp_path / "run", num_steps=1000, evaluations=[BEFORE, *made, AFTER])
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    more = {f"log/metric_{n}": n / 7 for n in range(60)}
    (path / "metrics.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    page = report_page([read_run(path)])
    assert len(page.encode()) < 3_000_000
    charts = json.loads(Page(page).scripts["charts"]).values()
    assert len(charts) > 75
    assert max(len(curve["x"]) for chart in charts for curve in chart["curves"]) <= 400


def test_no_run_makes_no_page():
    with pytest.raises(ValueError, match="at least one run, got none"):
        report_page([])


def test_a_number_that_is_not_finite_cannot_become_broken_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_for_script([float("nan")])


def test_a_page_is_known_by_its_maker():
    page = html_page("frame.html", title="a<b", generator="klimb study")
    assert is_page_of(page, "klimb study")
    assert not is_page_of(page, "klimb report")
    assert "script-src 'none'" in page


def test_markdown_of_a_row_is_shown_as_meant():
    assert markdown_html(r"mean of |Δ| <b>, see [`w`](x.md#y) and *not* a*b*c") == (
        "mean of |Δ| &lt;b&gt;, see <code>w</code> and <em>not</em> a*b*c"
    )


@pytest.mark.parametrize("whole", ["12.5 %", "5 %", "[56.0, 59.0] %", "[−7.7, +19.2] points", "± 3 %", "--max-age"])
def test_no_line_break_tears_a_number_from_its_unit_an_interval_or_an_option(whole: str):
    assert whole_html(f"<b> is {whole}, or") == f'&lt;b&gt; is <span class="whole">{whole}</span>, or'


def test_what_is_neither_number_nor_option_may_be_broken():
    assert whole_html("x5 %, a--b, 100 problems [see 3]") == "x5 %, a--b, 100 problems [see 3]"


@pytest.mark.parametrize(
    ("seeds", "note"),
    [
        ({"grpo": 1, "dapo": 1}, "Band: 95 % interval over problems."),
        ({"grpo": 2, "dapo": 2}, "Band: lowest to highest of the seeds."),
        ({"grpo": 2, "dapo": 1}, "Band: lowest to highest of the seeds; of a single run, 95 % interval over problems."),
    ],
)
def test_a_band_is_said_to_be_what_it_is(tmp_path: Path, seeds: dict[str, int], note: str):
    records = [
        read_run(write_run(tmp_path / f"{recipe}-{seed}", recipe=recipe, seed=seed))
        for recipe, count in seeds.items()
        for seed in range(count)
    ]
    assert {chart.note for chart in held_out_charts(group_runs(records)) if "Band" in chart.note} == {note}

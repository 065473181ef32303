"""A study as one page of HTML: what it says, the evidence, how it was made.

How the numbers of a study are made, for the reader of its page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from klimb import __version__
from klimb.findings.finding import Finding
from klimb.findings.study.analysis import StudyStatistics
from klimb.findings.study.scores import RunResult
from klimb.findings.study.verdicts import Units, budget_text, counted, units_of, verdicts
from klimb.ui.chart import Chart, chart_data, chart_svg, legend
from klimb.ui.escaping import escaped
from klimb.ui.pages.frame import html_page, style_sheet, tooltip_script
from klimb.ui.pages.study_charts import comparisons_html, learning_charts, profile_charts, scores_html, table_html
from klimb.ui.tables import StudyTable, study_tables

EXPLANATIONS = (
    (
        "Last and best",
        "Last is the score at the moment when the budget is spent. A run goes on to the end of the step that spends "
        "it, further in methods with larger steps, so the score is read off the straight line between the evaluations "
        "before and after. The best one on the way was chosen by its own score and is optimistic: it needs a further "
        "set of problems to be believed. Every run is evaluated on the same held-out problems.",
    ),
    (
        "Interquartile mean",
        "The mean of the middle half of the runs of all tasks and seeds. Its interval comes from drawing the runs "
        "again, with replacement, within each task (Agarwal et al. 2021, arXiv 2108.13264).",
    ),
    (
        "Differences",
        "Two methods are compared run by run of the same seed and problem by problem. The interval and p come from a "
        "t test that counts both as samples: the variance of the mean difference has a part for the seeds and one for "
        "the problems (two-way random effects, Satterthwaite's degrees of freedom). Tasks count equally.",
    ),
    (
        "Many comparisons",
        "Among twenty comparisons of equal methods one will look different at 5 % by chance. Holm's correction keeps "
        "the chance of any such mistake in a table below 5 %; a verdict rests on the corrected p.",
    ),
    (
        "Not distinguishable",
        "The data leave open whether there is a difference. The number of further seeds is what would find the "
        "difference seen here four times out of five, were it the true one; it is as uncertain as that difference.",
    ),
    (
        "P(improvement)",
        "The chance that a run of the one has more than a run of the other, averaged over tasks; 0.5 means neither. "
        "Its interval comes from drawing the runs of both again.",
    ),
    (
        "Lost runs",
        "Runs that failed or did not finish are in no number, and a pair of runs counts only if both finished.",
    ),
)
"""Heading and text."""


GENERATOR = "klimb compare"


TONES = {"good": "✓ a difference", "note": "• finding", "warning": "! mind this", "bad": "✗ problem"}


SECTIONS = (
    ("verdicts", "What it says"),
    ("scores", "Scores"),
    ("differences", "Differences"),
    ("curves", "Learning curves"),
    ("profiles", "Performance profiles"),
    ("tables", "Further tables"),
    ("runs", "Runs"),
    ("method", "How the numbers are made"),
    ("settings", "Settings"),
)


@dataclass
class _Charts:
    """Charts of the page with their numbers for the script."""

    data: dict[str, Any] = field(default_factory=dict)

    def figures(self, charts: Sequence[Chart]) -> str:
        return f'<div class="charts">{"".join(map(self._figure, charts))}</div>'

    def _figure(self, chart: Chart) -> str:
        name = f"chart-{len(self.data)}"
        self.data[name] = chart_data(chart)
        return (
            f'<figure><figcaption>{escaped(chart.title)} <span class="unit">{escaped(chart.unit)}</span>'
            f"{legend(chart)}</figcaption>{chart_svg(chart, name=name)}</figure>"
        )


def study_page(statistics: StudyStatistics, *, reports: Mapping[str, str] | None = None) -> str:
    """Return the whole page.

    Args:
        statistics: what is shown.
        reports: folder of a run -> address of its own report, relative to the page.
    """
    units, charts = units_of(statistics.scores), _Charts()
    tables = {table.name: table for table in study_tables(statistics)}
    body = "\n".join(
        [
            _header(statistics),
            _section("verdicts", "".join(map(_card, verdicts(statistics)))),
            _section("scores", scores_html(tables["main"], statistics)),
            _section("differences", comparisons_html(tables["comparisons"], statistics.main)),
            _section("curves", _learning(statistics, charts)),
            _section("profiles", _profiles(statistics, charts)),
            _section("tables", _further(tables)),
            _section("runs", _runs(statistics, units, reports or {})),
            _section(
                "method", "".join(f"<h3>{escaped(name)}</h3><p>{escaped(text)}</p>" for name, text in EXPLANATIONS)
            ),
            _section("settings", _settings(statistics)),
            f"<footer>klimb {escaped(__version__)}</footer>",
        ]
    )
    style = style_sheet() + files("klimb.ui.pages").joinpath("study.css").read_text(encoding="utf-8")
    return html_page(
        title=f"Study {statistics.scores.name}",
        body=body,
        generator=GENERATOR,
        style=style,
        scripts=[tooltip_script()],
        data={"charts": charts.data},
    )


def _header(statistics: StudyStatistics) -> str:
    scores = statistics.scores
    matrix = [
        counted(len(scores.methods), "method"),
        *([counted(len(scores.settings), "setting")] if len(scores.settings) > 1 else []),
        counted(len(scores.tasks), "task"),
        counted(len(scores.seeds), "seed"),
    ]
    notes = "".join(f"<li>{escaped(note)}</li>" for note in scores.notes)
    links = "".join(f'<li><a href="#{anchor}">{escaped(title)}</a></li>' for anchor, title in SECTIONS)
    return (
        f"<header><h1>Study {escaped(scores.name)}</h1>"
        f'<p class="quiet">{escaped(" × ".join(matrix))}; {escaped(budget_text(scores))} each; '
        f"baseline {escaped(scores.baseline)}</p>"
        f'{f"<ul>{notes}</ul>" if notes else ""}<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    )


def _section(anchor: str, content: str) -> str:
    title = dict(SECTIONS)[anchor]
    return f'<section id="{anchor}" class="{anchor}"><h2>{escaped(title)}</h2>{content}</section>'


def _card(verdict: Finding) -> str:
    listed = "".join(f"<li>{escaped(sentence)}</li>" for sentence in verdict.evidence.splitlines())
    return (
        f'<div class="finding {verdict.status}"><p class="label">{TONES[verdict.status]}</p>'
        f"<h3>{escaped(verdict.title)}</h3>{f'<ul>{listed}</ul>' if listed else ''}</div>"
    )


def _learning(statistics: StudyStatistics, charts: _Charts) -> str:
    note = (
        '<p class="quiet small">Interquartile mean over the seeds with its 95 % bootstrap band; '
        f"grey: {escaped(statistics.scores.baseline)}. All charts of a task have the same scale.</p>"
    )
    return note + "".join(
        f"<h3>{escaped(task)}</h3>{charts.figures(learning_charts(statistics, task=task))}"
        for task in statistics.scores.tasks
    )


def _profiles(statistics: StudyStatistics, charts: _Charts) -> str:
    note = (
        '<p class="quiet small">Share of runs whose last score is above the one on the axis; 95 % pointwise band. '
        "A curve that lies above another everywhere belongs to the better method, a steep one to the steadier.</p>"
    )
    return note + charts.figures(profile_charts(statistics))


def _further(tables: Mapping[str, StudyTable]) -> str:
    rest = [table for name, table in tables.items() if name not in ("main", "comparisons")]
    return "".join(
        f"<details><summary>{escaped(table.title)}</summary>{table_html(table)}"
        f'<p class="quiet small">{escaped(table.note)}</p></details>'
        for table in rest
    )


def _runs(statistics: StudyStatistics, units: Units, reports: Mapping[str, str]) -> str:
    runs = statistics.scores.runs
    lost = statistics.failed
    listed = "".join(
        f"<li>{escaped(f'{run.task}, {run.arm.name}, seed {run.seed}')}: <strong>{escaped(run.status)}</strong>"
        f"{f'; {escaped(run.failure[:500])}' if run.failure else ''}</li>"
        for run in lost
    )
    intro = f"<p>In no number:</p><ul>{listed}</ul>" if lost else f"<p>All {len(runs):,} runs finished.</p>"
    measures = statistics.measures
    rows = "".join(
        _run_row(run, [units.score(measures[key].score(run)) for key in ("last", "best")], reports)
        if run.is_scored
        else _run_row(run, ["–", "–"], reports)
        for run in runs
    )
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("run", "seed", "status", "last", "best", "spent", "steps")
    )
    return (
        f'{intro}<details><summary>Every run</summary><div class="scroll"><table class="study"><thead><tr>{heads}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div></details>"
    )


def _run_row(run: RunResult, numbers: Sequence[str], reports: Mapping[str, str]) -> str:
    name = escaped(f"{run.task}, {run.arm.name}")
    address = reports.get(run.folder)
    linked = f'<a href="{escaped(address)}">{name}</a>' if address else name
    steps = run.evaluations[-1].step if run.evaluations else 0
    cells = [str(run.seed), run.status, *numbers, f"{run.budget_spent:,.0f}", f"{steps:,}"]
    return f'<tr><th scope="row">{linked}</th>{"".join(f"<td>{escaped(cell)}</td>" for cell in cells)}</tr>'


def _settings(statistics: StudyStatistics) -> str:
    scores = statistics.scores
    facts = [*([("Command", scores.command)] if scores.command else []), *scores.facts]
    rows = "".join(f"<dt>{escaped(label)}</dt><dd>{escaped(value)}</dd>" for label, value in facts)
    text = f"<h3>The study's file</h3><pre>{escaped(scores.study_file)}</pre>" if scores.study_file else ""
    return f"<dl>{rows}</dl>{text}"

"""The report as one page of HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from klimb import __version__
from klimb.workbench.audit_escaping import escaped, escaped_part
from klimb.workbench.findings import Finding, find
from klimb.workbench.report.all_charts import OTHER, charts_of
from klimb.workbench.report.charts import Chart, chart_data, chart_svg, legend
from klimb.workbench.report.definitions import explained, markdown_html
from klimb.workbench.report.findings_section import findings_html, findings_lines
from klimb.workbench.report.grouping import Group, grouped
from klimb.workbench.report.guard_section import guard_html
from klimb.workbench.report.panels import GUARD, LEARNING, SECTIONS, TIME
from klimb.workbench.report.prompts import prompt_changes
from klimb.workbench.report.prompts_section import counts_line, prompts_html
from klimb.workbench.report.record import RunRecord
from klimb.workbench.report.samples import answers_html, samples_html
from klimb.workbench.report.settings_section import settings_html
from klimb.workbench.report.style import NUM_COLOURS, html_page, tooltip_script
from klimb.workbench.report.tiles import overview_html, tiles_html
from klimb.workbench.report.time_section import time_html

GENERATOR = "klimb report"
MOST_SAMPLED = 6
"""Runs of which a page about several shows answers."""


@dataclass
class _Page:
    """What is put together while the page is written: charts with their numbers, and the metrics to explain."""

    groups: tuple[Group, ...]
    drawn: Mapping[str, Sequence[Chart]]
    data: dict[str, Any] = field(default_factory=dict)
    metrics: set[str] = field(default_factory=set)

    def link(self, metric: str) -> str:
        """HTML of a metric's name, leading to its explanation on this page where there is one."""
        if not explained([metric]):
            return f"<code>{escaped(metric)}</code>"
        self.metrics.add(metric)
        return f'<a href="#metric-{escaped(metric)}"><code>{escaped(metric)}</code></a>'

    def chart(self, chart: Chart) -> str:
        """One figure; its numbers go to the script's data."""
        name = f"chart-{len(self.data)}"
        self.data[name] = chart_data(chart)
        metrics = " · ".join(self.link(metric) for metric in chart.metrics)
        unit = f' <span class="unit">{escaped(chart.unit)}</span>' if chart.unit else ""
        note = f'<p class="why">{escaped(chart.note)}</p>' if chart.note else ""
        return (
            f"<figure><figcaption>{escaped(chart.title)}{unit}{legend(chart)}</figcaption>"
            f'{chart_svg(chart, name=name)}{note}<p class="why metrics">{metrics}</p></figure>'
        )

    def charts(self, section: str) -> str:
        """The section's figures side by side; empty without any."""
        figures = "".join(self.chart(chart) for chart in self.drawn[section])
        return f'<div class="charts">{figures}</div>' if figures else ""


def report_page(records: Sequence[RunRecord]) -> str:
    """The whole page about one run or several.

    Raises:
        ValueError: there is no run.
    """
    if not records:
        raise ValueError("report_page needs at least one run, got none")
    groups = grouped(records)
    page = _Page(groups, charts_of(groups))
    found = [find(record) for record in records]
    sections = [
        ("findings", "Findings", _findings(page, records, found)),
        (LEARNING.key, LEARNING.title, page.charts(LEARNING.key)),
        ("prompts", "What changed per problem", _prompts(records)),
        ("samples", "Answers before and after", _samples(groups)),
        *(
            (section.key, section.title, _section(page, records, section.key))
            for section in SECTIONS
            if section.key != LEARNING.key
        ),
        (OTHER, "All other numbers", _rest(page)),
        ("settings", "How it was made", settings_html(records)),
        ("metrics", "What the numbers mean", ""),
    ]
    sections[-1] = ("metrics", "What the numbers mean", _glossary(page))
    kept = [(key, title, body) for key, title, body in sections if body]
    body = "\n".join([_head(records, groups), _contents(kept), *(_framed(*part) for part in kept), _footer()])
    return html_page(
        title=f"Report: {title_of(records)}",
        body=body,
        generator=GENERATOR,
        scripts=[tooltip_script()],
        data={"charts": page.data},
    )


def title_of(records: Sequence[RunRecord]) -> str:
    """The run's name, or the first names and how many more there are."""
    names = [record.name for record in records]
    return (
        names[0] if len(names) == 1 else f"{len(names)} runs: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
    )


def _head(records: Sequence[RunRecord], groups: Sequence[Group]) -> str:
    if len(records) > 1:
        settings = "" if len(groups) == len(records) else f" of {len(groups)} setting{'s' if len(groups) > 1 else ''}"
        return f"<header><h1>{len(records)} runs{settings}</h1>{overview_html(groups)}</header>"
    record = records[0]
    return (
        f"<header><h1>{escaped_part(record.name, limit=200)}</h1>"
        f'<p class="quiet">{escaped_part(_subtitle(record), limit=400)} {_status(record)}</p>'
        f"{tiles_html(record)}</header>"
    )


def _subtitle(record: RunRecord) -> str:
    parts = [
        record.setting("objective.recipe"),
        f"{record.setting('objective.divergence')}, β = {record.setting('objective.beta')}"
        if record.setting("objective.divergence")
        else None,
        f"task {record.summary.get('task') or record.setting('task.kind')}",
        f"model {record.setting('model.path')}",
        f"seed {record.seed}",
        str(record.provenance.get("started_at", ""))[:10],
    ]
    return " · ".join(str(part) for part in parts if part)


def _status(record: RunRecord) -> str:
    if record.is_finished:
        return '<span class="chip good">finished</span>'
    return f'<span class="chip warning">not finished: {record.num_steps} steps so far</span>'


def _findings(page: _Page, records: Sequence[RunRecord], found: Sequence[Sequence[Finding]]) -> str:
    if len(records) == 1:
        return findings_html(found[0], link=page.link)
    of_run = {id(record): findings for record, findings in zip(records, found, strict=True)}
    rows = "".join(
        f'<tr><th scope="row"><span class="c{number % NUM_COLOURS}">■</span> {escaped(group.label)}</th>'
        f"<td>{findings_lines([of_run[id(run)] for run in group.runs])}</td></tr>"
        for number, group in enumerate(page.groups)
    )
    cards = "".join(
        f"<h3>{escaped_part(record.name, limit=80)}</h3>{findings_html(of_run[id(record)], link=page.link)}"
        for record in records
    )
    return (
        f"<table><tbody>{rows}</tbody></table>"
        f"<details><summary>With evidence and advice, run by run</summary>{cards}</details>"
    )


def _prompts(records: Sequence[RunRecord]) -> str:
    parts: list[str] = []
    for record in records:
        if record.before is None or record.last is None:
            continue
        changes = prompt_changes(record.before, record.last)
        # Few problems are what a run without evaluations.jsonl happens to know: no sample of them all.
        if len(changes) < 4:
            continue
        inside = prompts_html(changes, record.before, record.last, record.evaluations)
        if len(records) > 1:
            line = escaped(counts_line(changes, is_accuracy=record.before.is_accuracy))
            inside = f"<details><summary>{escaped_part(record.name, limit=80)}: {line}</summary>{inside}</details>"
        parts.append(inside)
    return "".join(parts)


def _samples(groups: Sequence[Group]) -> str:
    """Of one run in the open; of several, of the first of each of the first few groups on demand."""
    parts: list[str] = []
    for group in groups[:MOST_SAMPLED]:
        record = group.runs[0]
        shown = _samples_of(record)
        if shown and (len(groups) > 1 or len(group.runs) > 1):
            shown = f"<details><summary>{escaped_part(record.name, limit=80)}</summary>{shown}</details>"
        parts.append(shown)
    body = "".join(parts)
    if not body:
        return ""
    return (
        '<p class="quiet small">The first problems of each kind, and the first answer drawn to each: none was picked '
        f"for how it reads. Sampled at temperature 1.</p>{body}"
    )


def _samples_of(record: RunRecord) -> str:
    before, last = record.before, record.last
    if before is not None and last is not None:
        shown = samples_html(prompt_changes(before, last), is_accuracy=before.is_accuracy)
        if shown:
            return shown
    newest = last if last is not None and last.problems else before
    return answers_html(newest) if newest is not None else ""


def _section(page: _Page, records: Sequence[RunRecord], key: str) -> str:
    charts = page.charts(key)
    if key == GUARD.key:
        return "".join(guard_html(record, is_alone=len(records) == 1) for record in records) + charts
    if key == TIME.key and len(records) == 1:
        return time_html(records[0]) + charts
    return charts


def _rest(page: _Page) -> str:
    count = len(page.drawn[OTHER])
    return f"<details><summary>{count} more charts</summary>{page.charts(OTHER)}</details>" if count else ""


def _glossary(page: _Page) -> str:
    rows = "".join(
        f'<dt>{", ".join(_named(name) for name in names)} <span class="unit">{escaped(row.unit)}</span></dt>'
        f"<dd>{markdown_html(row.formula)}."
        f"{f' Healthy: {markdown_html(row.healthy)}.' if row.healthy else ''}"
        f"{f' Otherwise: {markdown_html(row.outside)}.' if row.outside else ''}</dd>"
        for row, names in explained(page.metrics).items()
    )
    return f'<p class="quiet small">From docs/metrics.md.</p><dl class="glossary">{rows}</dl>' if rows else ""


def _named(metric: str) -> str:
    return f'<code id="metric-{escaped(metric)}">{escaped(metric)}</code>'


def _contents(sections: Sequence[tuple[str, str, str]]) -> str:
    items = "".join(f'<li><a href="#{key}">{escaped(title)}</a></li>' for key, title, _ in sections)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _framed(key: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{key}"><h2 id="{key}">{escaped(title)}</h2>{body}</section>'


def _footer() -> str:
    made_by = f"klimb {escaped(__version__)} · made by <code>klimb report</code>"
    return f"<footer>{made_by}; nothing on this page is loaded or sent.</footer>"

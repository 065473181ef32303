"""The report as one page of HTML.

The findings of a run as cards: what, how one can tell, what to try next.

What a run's guard did, as HTML: base metrics before and after, and every time that a limit was broken.

How a run came about, as HTML: settings, commit, seed, packages, and the command that repeats it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from klimb import __version__
from klimb.findings.finding import STATUSES, Finding, Status
from klimb.findings.metrics import explain
from klimb.findings.run.changes import prompt_changes
from klimb.findings.run.record import RunRecord, is_number
from klimb.findings.run.rules import find
from klimb.ui.chart import NUM_COLOURS, Chart, chart_data, chart_svg, legend
from klimb.ui.escaping import escaped, escaped_part, markdown_html
from klimb.ui.grouping import Group, differing, flat, group_runs
from klimb.ui.pages.frame import html_page, tooltip_script
from klimb.ui.pages.run_answers import answers_html, counts_line, prompts_html, samples_html
from klimb.ui.pages.run_tiles import overview_html, tiles_html, time_html
from klimb.ui.panels import GUARD, LEARNING, SECTIONS, TIME
from klimb.ui.run_charts import OTHER, charts_of

SIGNS: dict[Status, str] = {"bad": "✗ bad", "warning": "! warning", "note": "· note", "good": "✓ good"}


def findings_html(findings: Sequence[Finding], *, link: Callable[[str], str]) -> str:
    """All findings, the most severe first; a sentence if there are none. `link` makes HTML of a metric's name."""
    if not findings:
        return '<p class="quiet">No rule found anything to say about this run.</p>'
    ordered = sorted(findings, key=lambda finding: STATUSES.index(finding.status))
    return "".join(_card(finding, link) for finding in ordered)


def findings_lines(found: Sequence[Sequence[Finding]]) -> str:
    """Each finding of runs that differ by their seed, in HTML, with how many of the runs have it."""
    counts: Counter[tuple[Status, str]] = Counter(
        (finding.status, finding.title) for findings in found for finding in findings
    )
    ordered = sorted(counts.items(), key=lambda item: STATUSES.index(item[0][0]))
    lines = [
        f'<span class="nowrap {severity}">{SIGNS[severity]}</span> {escaped(title)}'
        + (f' <span class="quiet nowrap">{count} of {len(found)} seeds</span>' if len(found) > 1 else "")
        for (severity, title), count in ordered
    ]
    return "<br>".join(lines) or '<span class="quiet">nothing</span>'


def _card(finding: Finding, link: Callable[[str], str]) -> str:
    advice = f"<p><strong>Try next:</strong> {escaped(finding.advice)}</p>" if finding.advice else ""
    metrics = " · ".join(link(name) for name in finding.metrics)
    return (
        f'<article class="finding {finding.status}"><p class="label">{SIGNS[finding.status]}</p>'
        f"<h3>{escaped(finding.title)}</h3><p>{escaped(finding.evidence)}</p>{advice}"
        f'<p class="quiet small metrics">{metrics}{" · " if metrics else ""}docs/findings.md, {escaped(finding.name)}'
        "</p></article>"
    )


MOST_EVENTS = 50


def guard_html(record: RunRecord, *, is_alone: bool) -> str:
    """Return the table of base metrics and the events; empty if the run was not guarded."""
    before, after = (_numbers(record.guard.get(when)) for when in ("before", "after"))
    names = list(dict.fromkeys([*before, *after]))
    if not names and not record.guard.get("events"):
        return ""
    title = "" if is_alone else f"<h3>{escaped_part(record.name, limit=80)}</h3>"
    rows = "".join(
        f'<tr><th scope="row"><code>{escaped(name)}</code></th>{_cell(before.get(name))}{_cell(after.get(name))}</tr>'
        for name in names
    )
    heads = '<th scope="col"></th><th scope="col" class="number">before</th><th scope="col" class="number">after</th>'
    table = f'<table class="auto"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>' if rows else ""
    return f"{title}{_events(record)}{table}"


def _events(record: RunRecord) -> str:
    events = [event for event in record.guard.get("events") or [] if isinstance(event, Mapping)]
    if not events:
        return '<p><span class="good">✓</span> No limit was broken.</p>'
    items = "".join(
        f'<li><span class="bad">{escaped(str(event.get("action", "event")))}</span> after step '
        f"{escaped(str(event.get('step', '?')))}: <code>{escaped(str(event.get('metric', '')))}</code> was "
        f"{_text(event.get('value'))}, the limit is {_text(event.get('limit'))}. "
        f"{escaped_part(str(event.get('reason') or ''), limit=400)}</li>"
        for event in events[:MOST_EVENTS]
    )
    return f"<ul>{items}</ul>"


def _numbers(tables: Any) -> dict[str, float]:
    found = flat(tables) if isinstance(tables, Mapping) else {}
    return {name: float(value) for name, value in found.items() if is_number(value)}


def _cell(value: float | None) -> str:
    return f'<td class="number">{_text(value)}</td>'


def _text(value: Any) -> str:
    return f"{value:.4g}".replace("-", "−") if is_number(value) else escaped(str(value)) if value is not None else "–"


LONGEST_VALUE = 300


MOST_DIFFERENCES = 40


def settings_html(records: Sequence[RunRecord]) -> str:
    """Return what differs between the runs, and all of each run's settings on demand."""
    return _differences(records) + "".join(_run(record, is_open=len(records) == 1) for record in records)


def _differences(records: Sequence[RunRecord]) -> str:
    keys = [key for key in differing(records) if not key.startswith("run.")] if len(records) > 1 else []
    if not keys:
        return ""
    heads = "".join(f'<th scope="col">{escaped_part(record.name, limit=60)}</th>' for record in records)
    rows = "".join(
        f'<tr><th scope="row"><code>{escaped(key)}</code></th>'
        + "".join(f"<td>{_value(flat(record.config).get(key, '–'))}</td>" for record in records)
        + "</tr>"
        for key in keys[:MOST_DIFFERENCES]
    )
    more = len(keys) - MOST_DIFFERENCES
    note = f'<p class="quiet small">{more} more settings differ.</p>' if more > 0 else ""
    return (
        '<h3>Settings that differ</h3><div class="scroll"><table><thead><tr><th scope="col"></th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}"
    )


def _run(record: RunRecord, *, is_open: bool) -> str:
    facts = "".join(f"<dt>{escaped(label)}</dt><dd>{value}</dd>" for label, value in _facts(record))
    packages = record.provenance.get("packages", {})
    listed = ", ".join(f"{escaped(str(name))} {escaped(str(version))}" for name, version in packages.items() if version)
    title = f"{'Settings' if is_open else 'Settings of'} {'' if is_open else escaped_part(record.name, limit=80)}"
    return (
        f"<details{' open' if is_open else ''}><summary>{title.strip()}</summary><dl>{facts}"
        f"<dt>packages</dt><dd>{listed or '–'}</dd></dl>{_tables(record.config)}</details>"
    )


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    """Label and HTML."""
    written = record.provenance
    commit = written.get("commit")
    changed = " with uncommitted changes" if written.get("uncommitted_changes") else ""
    return [
        ("run", f"<code>{escaped_part(record.name, limit=LONGEST_VALUE)}</code>"),
        ("commit", f"<code>{escaped(str(commit))}</code>{changed}" if commit else "not known"),
        ("seed", escaped(str(record.seed)) if record.seed is not None else "not known"),
        ("started", escaped(str(written.get("started_at", "not known")))),
        ("python", escaped(f"{written.get('python', '?')} on {written.get('platform', '?')}")),
        ("repeat", "<code>klimb train config.json --folder NEW</code> in the run's folder"),
    ]


def _tables(config: Mapping[str, Any]) -> str:
    """All settings, a section each, side by side."""
    sections = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    single = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    named = ([("", single)] if single else []) + list(sections.items())
    return f'<div class="sections">{"".join(_settings_of_section(name, tables) for name, tables in named)}</div>'


def _settings_of_section(name: str, tables: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escaped(key)}</code></th><td>{_value(value)}</td></tr>'
        for key, value in flat(tables).items()
    )
    return f'<table class="small"><caption>{escaped(name) or "run"}</caption><tbody>{rows}</tbody></table>'


def _value(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return escaped_part(shown, limit=LONGEST_VALUE)


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
        if not explain([metric]):
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
        """Return the section's figures side by side; empty without any."""
        figures = "".join(self.chart(chart) for chart in self.drawn[section])
        return f'<div class="charts">{figures}</div>' if figures else ""


def report_page(records: Sequence[RunRecord]) -> str:
    """Return the whole page about one run or several.

    Raises:
        ValueError: there is no run.
    """
    if not records:
        raise ValueError("report_page needs at least one run, got none")
    groups = group_runs(records)
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
    """Return the run's name, or the first names and how many more there are."""
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
        for row, names in explain(page.metrics).items()
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

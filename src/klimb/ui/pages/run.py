"""The report about one run or several as one page of HTML: what its template shows, prepared from the runs.

Findings: what, how one can tell, what to try next. What a run's guard did: base metrics before and after, and every
time that a limit was broken. How a run came about: settings, commit, seed, packages, the command that repeats it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klimb.findings.finding import STATUSES, Finding, Status
from klimb.findings.guard.events import GuardEvent, events_of, in_one_sentence
from klimb.findings.metrics import explain
from klimb.findings.run.changes import prompt_changes
from klimb.findings.run.record import RunRecord, is_number
from klimb.findings.run.rules import find
from klimb.ui.escaping import cut
from klimb.ui.grouping import Group, differing, flat, group_runs
from klimb.ui.pages.frame import Drawing, drawings, html_page, tooltip_script, values_of
from klimb.ui.pages.run_answers import answers, counts_line, prompts, samples
from klimb.ui.pages.run_conversations import talk
from klimb.ui.pages.run_tiles import OVERVIEW_HEADS, overview, tiles_of, time_chart, time_rows, time_shares
from klimb.ui.panels import GUARD, LEARNING, SECTIONS, TIME
from klimb.ui.run_charts import OTHER, charts_of
from klimb.ui.svg import classes


def lines(found: Sequence[Sequence[Finding]]) -> list[dict[str, Any]]:
    """Each finding of runs that differ by their seed, with how many of the runs have it."""
    counts: Counter[tuple[Status, str]] = Counter(
        (finding.status, finding.title) for findings in found for finding in findings
    )
    ordered = sorted(counts.items(), key=lambda item: STATUSES.index(item[0][0]))
    return [
        {
            "status": status,
            "title": title,
            "seeds": f"{count} of {len(found)} seeds" if len(found) > 1 else "",
        }
        for (status, title), count in ordered
    ]


MOST_EVENTS = 50


def guard(record: RunRecord) -> dict[str, Any] | None:
    """Return the table of base metrics and the events; None if the run was not guarded."""
    before, after = (_numbers(record.guard.get(when)) for when in ("before", "after"))
    names = list(dict.fromkeys([*before, *after]))
    if not names and not record.guard.get("events"):
        return None
    events = events_of(record.guard)
    return {
        "name": record.name,
        "rows": [(name, _text(before.get(name)), _text(after.get(name))) for name in names],
        "events": [_event(event) for event in events[:MOST_EVENTS]],
    }


def _event(event: GuardEvent) -> dict[str, str]:
    finding = event.finding
    return {
        "action": event.action,
        "step": str(event.step),
        "metric": finding.name,
        "value": _text(finding.number),
        "limit": _text(finding.limit),
        "reason": in_one_sentence(finding),
    }


def _numbers(tables: Any) -> dict[str, float]:
    found = flat(tables) if isinstance(tables, Mapping) else {}
    return {name: float(value) for name, value in found.items() if is_number(value)}


def _text(value: Any) -> str:
    return f"{value:.4g}".replace("-", "−") if is_number(value) else str(value) if value is not None else "–"


LONGEST_VALUE = 300


MOST_DIFFERENCES = 40


def differences(records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """Return the settings in which the runs differ; None if there are none."""
    keys = [key for key in differing(records) if not key.startswith("run.")] if len(records) > 1 else []
    if not keys:
        return None
    settings = [flat(record.config) for record in records]
    return {
        "heads": [record.name for record in records],
        "rows": [(key, [_value(one.get(key, "–")) for one in settings]) for key in keys[:MOST_DIFFERENCES]],
        "num_more": max(0, len(keys) - MOST_DIFFERENCES),
    }


def settings(record: RunRecord) -> dict[str, Any]:
    """Return all settings of a run, a section each, and how it came about."""
    written = record.provenance
    packages = written.get("packages", {})
    sections = {key: value for key, value in record.config.items() if isinstance(value, Mapping)}
    single = {key: value for key, value in record.config.items() if not isinstance(value, Mapping)}
    named = ([("run", single)] if single else []) + list(sections.items())
    return {
        "name": record.name,
        "facts": [
            ("klimb", code_in_words(written.get("klimb"))),
            ("your repository", code_in_words(written.get("repository"))),
            ("seed", str(record.seed) if record.seed is not None else "not known"),
            ("started", str(written.get("started_at", "not known"))),
            ("python", f"{written.get('python', '?')} on {written.get('platform', '?')}"),
        ],
        "data": [*written.get("data", {}).items(), *written.get("own_parts", {}).items()],
        "history": [_change(line) for line in record.history],
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items() if version) or "–",
        "sections": [(name, [(key, _value(value)) for key, value in flat(tables).items()]) for name, tables in named],
    }


def code_in_words(code: Mapping[str, Any] | None) -> str:
    """Return version and commit of klimb, or the commit of a repository, and whether there was more than it says."""
    if not code:
        return "not known"
    commit = f"commit {str(code['commit'])[:12]}" if code.get("commit") else ""
    parts = [str(code["version"])] if code.get("version") else []
    changed = " with uncommitted changes" if code.get("uncommitted_changes") else ""
    return ", ".join([*parts, *([commit] if commit else [])]) + changed


def _change(line: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return up to which step a setting had its old value, the setting, and both values."""
    old, new = (_value("absent" if line.get(side) is None else line[side]) for side in ("old", "new"))
    return str(line["step"]), str(line["key"]), old, new


def _value(value: Any) -> str:
    return cut(str(value).lower() if isinstance(value, bool) else str(value), LONGEST_VALUE)


GENERATOR = "klimb report"


MOST_SAMPLED = 6
"""Runs of which a page about several shows answers."""


def report_page(records: Sequence[RunRecord], found: Sequence[Sequence[Finding]] | None = None) -> str:
    """Return the whole page about one run or several.

    Args:
        records: of the runs.
        found: the findings of each run; None asks klimb's own rules.

    Raises:
        ValueError: there is no run.
    """
    if not records:
        raise ValueError("report_page needs at least one run, got none")
    groups = group_runs(records)
    charts = {key: drawings(key, found) for key, found in charts_of(groups).items()}
    found = [find(record) for record in records] if found is None else found
    shown = [drawing for listed in charts.values() for drawing in listed]
    named = {name for drawing in shown for name in drawing.chart.metrics}
    named |= {name for findings in found for finding in findings for name in finding.metrics}
    explanations = explain(named)
    sections = _sections(records, groups, found, charts, bool(explanations))
    return html_page(
        "run.html",
        title=f"Report: {title_of(records)}",
        generator=GENERATOR,
        scripts=[tooltip_script()],
        data={"charts": values_of(shown)},
        records=records,
        is_alone=len(records) == 1,
        num_settings=len(groups),
        subtitle=_subtitle(records[0]),
        tiles=tiles_of(records[0]),
        heads=OVERVIEW_HEADS,
        overview=overview(groups),
        sections=sections,
        charts=charts,
        explained={name for names in explanations.values() for name in names},
        explanations=explanations,
    )


@dataclass(frozen=True)
class Section:
    """One part of the page; the template knows how to show the content of each key."""

    key: str
    title: str
    content: Any = None


def _sections(
    records: Sequence[RunRecord],
    groups: Sequence[Group],
    found: Sequence[Sequence[Finding]],
    charts: Mapping[str, Sequence[Drawing]],
    has_explanations: bool,
) -> list[Section]:
    """Return all parts of the page in order, without those that are empty."""
    guards = [part for part in map(guard, records) if part is not None]
    times = _times(records)
    panels = {section.key: section for section in SECTIONS}
    rest = [key for key in panels if key not in (LEARNING.key, GUARD.key, TIME.key)]
    kept = [
        Section("findings", "Findings", _findings(records, groups, found)),
        Section(LEARNING.key, LEARNING.title, charts[LEARNING.key]),
        Section("prompts", "What changed per problem", _prompts(records)),
        Section("samples", "Answers before and after", _samples(groups)),
        Section("conversations", "Conversations", _conversations(groups)),
        *(Section(key, panels[key].title, charts[key]) for key in rest),
        Section(GUARD.key, GUARD.title, guards or charts[GUARD.key]),
        Section(TIME.key, TIME.title, times or charts[TIME.key]),
        Section(OTHER, "All other numbers", charts[OTHER]),
        Section("settings", "How it was made", (differences(records), [settings(record) for record in records])),
        Section("metrics", "What the numbers mean", has_explanations),
    ]
    return [section for section in kept if section.content]


def title_of(records: Sequence[RunRecord]) -> str:
    """Return the run's name, or the first names and how many more there are."""
    names = [record.name for record in records]
    return (
        names[0] if len(names) == 1 else f"{len(names)} runs: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
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


def _findings(
    records: Sequence[RunRecord], groups: Sequence[Group], found: Sequence[Sequence[Finding]]
) -> dict[str, Any]:
    of_run = {id(record): findings for record, findings in zip(records, found, strict=True)}
    return {
        "groups": [
            {
                "colour": classes(number),
                "label": group.label,
                "lines": lines([of_run[id(run)] for run in group.runs]),
            }
            for number, group in enumerate(groups)
        ],
        "runs": [(record.name, of_run[id(record)]) for record in records],
    }


def _prompts(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for record in records:
        if record.before is None or record.last is None:
            continue
        changes = prompt_changes(record.before, record.last)
        # Few problems are what a run without evaluations.jsonl happens to know: no sample of them all.
        if len(changes) < 4:
            continue
        part = prompts(changes, record.before, record.last, record.evaluations)
        line = counts_line(changes, is_accuracy=record.before.is_accuracy)
        drawing = Drawing(f"problems-{len(parts)}", part["chart"])
        parts.append({**part, "drawing": drawing, "name": record.name, "line": line})
    return parts


def _samples(groups: Sequence[Group]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Of one run in the open; of several, of the first of each of the first few groups on demand."""
    shown = [(group.runs[0].name, _samples_of(group.runs[0])) for group in groups[:MOST_SAMPLED]]
    return [(name, found) for name, found in shown if found]


def _samples_of(record: RunRecord) -> list[dict[str, Any]]:
    before, last = record.before, record.last
    if before is not None and last is not None:
        shown = samples(prompt_changes(before, last), is_accuracy=before.is_accuracy)
        if shown:
            return shown
    newest = last if last is not None and last.problems else before
    return answers(newest) if newest is not None else []


def _conversations(groups: Sequence[Group]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Of the newest rollouts; of several runs, of the first of each of the first few groups on demand."""
    shown = [(group.runs[0].name, [talk(sample) for sample in group.runs[0].conversations]) for group in groups]
    return [(name, talks) for name, talks in shown[:MOST_SAMPLED] if talks]


def _times(records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """Return bars and rows of where the time of a single run went."""
    shares = time_shares(records[0]) if len(records) == 1 else []
    chart = time_chart(shares)
    return None if chart is None else {"drawing": Drawing("times", chart), "rows": time_rows(shares)}

"""What a run's guard did, as HTML: base metrics before and after, and every time that a limit was broken."""

from collections.abc import Mapping
from typing import Any

from klimb.workbench.audit_escaping import escaped, escaped_part
from klimb.workbench.report.grouping import flat
from klimb.workbench.report.record import RunRecord, is_number

MOST_EVENTS = 50


def guard_html(record: RunRecord, *, is_alone: bool) -> str:
    """The table of base metrics and the events; empty if the run was not guarded."""
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

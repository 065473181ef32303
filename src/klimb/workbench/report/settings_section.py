"""How a run came about, as HTML: settings, commit, seed, packages, and the command that repeats it."""

from collections.abc import Mapping, Sequence
from typing import Any

from klimb.workbench.audit_escaping import escaped, escaped_part
from klimb.workbench.report.grouping import differing, flat
from klimb.workbench.report.record import RunRecord

LONGEST_VALUE = 300
MOST_DIFFERENCES = 40


def settings_html(records: Sequence[RunRecord]) -> str:
    """What differs between the runs, and all of each run's settings on demand."""
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
    return f'<div class="sections">{"".join(_section(name, tables) for name, tables in named)}</div>'


def _section(name: str, tables: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escaped(key)}</code></th><td>{_value(value)}</td></tr>'
        for key, value in flat(tables).items()
    )
    return f'<table class="small"><caption>{escaped(name) or "run"}</caption><tbody>{rows}</tbody></table>'


def _value(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return escaped_part(shown, limit=LONGEST_VALUE)

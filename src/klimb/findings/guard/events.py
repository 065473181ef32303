"""What the guard did about a broken limit: how it is written into guard.json, read from there, and told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klimb.findings.finding import STATUSES, Finding

TEXTS = ("name", "title", "evidence", "threshold", "source")


@dataclass(frozen=True, kw_only=True)
class GuardEvent:
    """One broken limit.

    Attributes:
        step: after which it was found.
        action: `warn`, `stop` or `rollback`.
        finding: the limit and the number beyond it.
        to_step: of a rollback, the step that the policy went back to.
    """

    step: int
    action: str
    finding: Finding
    to_step: int | None = None

    def row(self) -> dict[str, Any]:
        """Return the event as guard.json holds it; null for a number that is not finite."""
        finding = self.finding
        place = {"step": self.step, "action": self.action}
        if self.to_step is not None:
            place["to_step"] = self.to_step
        texts = {name: text for name in TEXTS if (text := getattr(finding, name))}
        numbers = {"number": _finite(finding.number), "limit": _finite(finding.limit)}
        return {**place, "status": finding.status, **texts, **numbers}


def event_from(row: object) -> GuardEvent | None:
    """Return the event that a row of guard.json tells; None if it has no step, and so is none."""
    if not isinstance(row, Mapping) or not isinstance(row.get("step"), int):
        return None
    to_step = row.get("to_step")
    return GuardEvent(
        step=row["step"],
        action=str(row.get("action", "")),
        finding=_finding_from(row),
        to_step=to_step if isinstance(to_step, int) else None,
    )


def events_of(guard: Mapping[str, Any]) -> tuple[GuardEvent, ...]:
    """Return the events in the content of guard.json."""
    rows = guard.get("events")
    found = map(event_from, rows if isinstance(rows, list) else ())
    return tuple(event for event in found if event is not None)


def in_one_sentence(finding: Finding) -> str:
    """Return what was found, how one can tell, what is allowed, and by which key."""
    evidence = f" ({finding.evidence})" if finding.evidence else ""
    source = f" ({finding.source})" if finding.source else ""
    return f"{finding.title}{evidence}" + (f"; allowed: {finding.threshold}{source}" if finding.threshold else "")


def _finding_from(row: Mapping[str, Any]) -> Finding:
    def text(name: str) -> str:
        return str(row.get(name, ""))

    return Finding(
        name=text("name"),
        status=row["status"] if row.get("status") in STATUSES else "warning",
        title=text("title"),
        evidence=text("evidence"),
        threshold=text("threshold"),
        source=text("source"),
        number=_number(row.get("number")),
        limit=_number(row.get("limit")),
    )


def _number(value: object) -> float | None:
    return _finite(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

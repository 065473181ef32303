"""Where the time of a run went, as a bar and a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from klimb.workbench.audit_escaping import escaped
from klimb.workbench.report.record import RunRecord
from klimb.workbench.text import duration

PARTS = (
    ("sample_seconds", "drawing answers"),
    ("score_seconds", "rewards"),
    ("reference_seconds", "reference and sampler's gap"),
    ("update_seconds", "updates"),
)
"""What a step's own seconds are made of."""
BAR_WIDTH = 720.0
BAR_HEIGHT = 22.0


@dataclass(frozen=True)
class Share:
    """Seconds of one kind of work."""

    label: str
    seconds: float


def time_shares(record: RunRecord) -> list[Share]:
    """What took how long: parts of the steps, evaluations, guard, and the rest up to the run's whole time."""
    shares = [Share(label, _sum(record, metric)) for metric, label in PARTS]
    steps = _sum(record, "step_seconds")
    shares.append(Share("rest of the steps", max(0.0, steps - sum(share.seconds for share in shares))))
    shares.append(Share("evaluations during training", _sum(record, "evaluation_seconds")))
    shares.append(Share("base metrics", _sum(record, "guard_seconds") + _sum(record, "guard/seconds")))
    of_summary = record.summary.get("seconds", {})
    shares.append(Share("evaluations before and after", float(of_summary.get("evaluation", 0.0))))
    known = sum(share.seconds for share in shares)
    shares.append(Share("loading, saving, the rest", max(0.0, float(of_summary.get("total", 0.0)) - known)))
    return [share for share in shares if share.seconds > 0]


def time_html(record: RunRecord) -> str:
    """Bar and table; empty if nothing was timed."""
    shares = time_shares(record)
    total = sum(share.seconds for share in shares)
    if total <= 0:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><span class="c{index % 8}">■</span> {escaped(share.label)}</th>'
        f'<td class="number">{duration(share.seconds) if share.seconds >= 1 else f"{share.seconds:.2g} s"}</td>'
        f'<td class="number">{100 * share.seconds / total:.1f} %</td></tr>'
        for index, share in enumerate(shares)
    )
    return f'{_bar(shares, total)}<table class="auto"><tbody>{rows}</tbody></table>'


def _bar(shares: Sequence[Share], total: float) -> str:
    parts: list[str] = []
    start = 0.0
    for index, share in enumerate(shares):
        width = BAR_WIDTH * share.seconds / total
        parts.append(
            f'<rect class="block c{index % 8}" x="{start:.1f}" y="0" width="{max(0.5, width - 1):.1f}" '
            f'height="{BAR_HEIGHT:g}"><title>{escaped(share.label)}</title></rect>'
        )
        start += width
    return (
        f'<svg viewBox="0 0 {BAR_WIDTH:g} {BAR_HEIGHT:g}" role="img" aria-label="Shares of the time">'
        f"{''.join(parts)}</svg>"
    )


def _sum(record: RunRecord, metric: str) -> float:
    return sum(record.curve(metric)[1])

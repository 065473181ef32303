"""What rows of a log that were held out say of the trained policy, as a finding."""

from collections.abc import Mapping

from klimb.findings.finding import Finding, Status
from klimb.findings.run.record import RunRecord
from klimb.findings.run.thresholds import Thresholds

HELD_OUT_STATUS: Mapping[str, Status] = {"better": "good", "worse": "bad", "unknown": "note"}


def held_out_rows(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Tell what held-out rows of the log say of the trained policy."""
    found = record.summary.get("held_out_log")
    if not isinstance(found, Mapping) or found.get("verdict") not in HELD_OUT_STATUS:
        return None
    verdict = str(found["verdict"])
    titles = {"better": "Held-out rows of the log: better than before", "worse": "Held-out rows of the log: worse"}
    return Finding(
        status=HELD_OUT_STATUS[verdict],
        title=titles.get(verdict, "Held-out rows of the log do not tell whether the model is better"),
        evidence=str(found.get("sentence", "")),
        advice=(
            ""
            if verdict == "better"
            else "More rated rows, or a larger log.held_out_fraction, narrow the interval; lower "
            "optimizer.learning_rate or fewer training.num_steps where it is worse."
        ),
    )

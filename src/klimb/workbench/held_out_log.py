"""Held-out rows of the log, before and after training: what they say stands in the run's folder and its summary."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from klimb.experience import Sample
from klimb.findings.evaluations import interval_row
from klimb.findings.held_out_comparison import compare_held_out
from klimb.findings.held_out_log import HeldOutComparison, HeldOutRow
from klimb.training.held_out_log import read_held_out, score_held_out
from klimb.training.minibatches import tokens_at_once
from klimb.training.run_folder import RunFolder, read_object, write_json
from klimb.workbench.session import Session


@dataclass(frozen=True, kw_only=True)
class HeldOutLog:
    """The rows, as they were before training.

    Attributes:
        rows: one a sample; `after` is not known yet and equal to `before`.
        samples: in the same order.
        unit: the noun for what was held out whole.
    """

    rows: tuple[HeldOutRow, ...]
    samples: tuple[Sample, ...]
    unit: str


def measure_before(session: Session, folder: RunFolder) -> HeldOutLog | None:
    """Score the held-out rows under the untrained policy; what an earlier process of this run found is taken over.

    None where no log holds any out, or the policy can be given none of them.
    """
    held_out = read_held_out(session.logs)
    if not held_out:
        return None
    samples = [sample for sample, _ in held_out]
    before = _stored(folder)
    if set(before) != {sample.sample_id for sample in samples}:
        before = _score(session, samples)
        write_json(folder.held_out_log, {"before": dict(before)})
    rows = tuple(
        HeldOutRow(
            sample_id=sample.sample_id,
            unit=unit,
            reward=sample.reward,
            before=before[sample.sample_id],
            after=before[sample.sample_id],
        )
        for sample, unit in held_out
    )
    units = {logged.held_out.unit for logged in session.logs if logged.held_out is not None}
    return HeldOutLog(rows=rows, samples=tuple(samples), unit="user" if units == {"user"} else "prompt")


def measure_after(session: Session, folder: RunFolder, before: HeldOutLog) -> HeldOutComparison:
    """Score the same rows under the trained policy, and write down what they say."""
    after = _score(session, before.samples)
    rows = [replace(row, after=after[row.sample_id]) for row in before.rows]
    found = compare_held_out(rows, unit=before.unit)
    content = {
        "before": {row.sample_id: row.before for row in rows},
        "rows": [asdict(row) for row in rows],
        **as_table(found),
    }
    write_json(folder.held_out_log, content)
    return found


def as_table(found: HeldOutComparison) -> dict[str, Any]:
    """Return what a file says of the comparison."""
    return {
        "verdict": found.verdict,
        "sentence": found.sentence,
        "num_rows": found.num_rows,
        "num_rated": found.num_rated,
        "likelihood": interval_row(found.likelihood),
        "preference": None if found.preference is None else interval_row(found.preference),
    }


def _score(session: Session, samples: Sequence[Sample]) -> Mapping[str, float]:
    most = tokens_at_once(session.config.training.micro_batch_tokens, session.policy.device)
    return score_held_out(session.policy, samples, max_tokens=most)


def _stored(folder: RunFolder) -> dict[str, float]:
    """Return what was measured before training; empty without it, or where the file is damaged."""
    if not folder.held_out_log.is_file():
        return {}
    content, _ = read_object(folder.held_out_log)
    found = content.get("before")
    return {str(name): float(value) for name, value in found.items()} if isinstance(found, dict) else {}

"""Log μ (or log ref) of a store's samples computed by a model, into a new store."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.experience import Sample
from klimb.experience.store import Store, open_store
from klimb.policies import Policy, load_policy
from klimb.ui.text import printable
from klimb.workbench.log_scoring import Refusals, scored_rows
from klimb.workbench.model_path import model_path
from klimb.workbench.options import ScoreOptions

BATCH = 1024
"""Samples that are scored and written together: one segment of the new store."""


LARGEST_GAP = 0.1
"""Nats a token; other kernels and precisions of the same weights differ by less, other weights by more."""


@dataclass
class Scoring:
    """What came of it.

    Attributes:
        num_read: samples that met the condition.
        num_scored: those in the new store.
        num_compared: tokens that had a recorded value of the same kind.
        sum_abs: Σ |recorded − recomputed| over these, in nats.
        refusals: the others.
    """

    num_read: int = 0
    num_scored: int = 0
    num_compared: int = 0
    sum_abs: float = 0.0
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def mean_gap(self) -> float | None:
        """Mean |recorded − recomputed| in nats a token; None if nothing was recorded."""
        return self.sum_abs / self.num_compared if self.num_compared else None


def run_score(path: Path, request: ScoreOptions, *, console: Console) -> Scoring:
    """Scores and writes the new store whole or not at all; prints counts and the gap to what was recorded.

    Raises:
        ConfigError: something is at `into` already, or no sample can be scored.
    """
    if request.into.exists():
        raise ConfigError(f"{request.into} already exists; a new store is written, never one changed: name another")
    opened = open_store(path)
    total = opened.count(request.where)
    if not total:
        raise ConfigError(f"{path} holds no samples{f' where {request.where}' if request.where else ''}")
    policy = load_policy(model_path(request.model), dtype=request.dtype)
    request.into.parent.mkdir(parents=True, exist_ok=True)
    done = Scoring()
    # Renamed at the end, so that a scoring that was stopped leaves no half store behind.
    with tempfile.TemporaryDirectory(dir=request.into.parent, prefix=f".{request.into.name}-") as aside:
        new = Store(Path(aside) / "store")
        with console.status(f"scoring {total} samples") as status:
            for batch in _batches(opened.samples(where=request.where)):
                found = _score_batch(policy, batch, request, done)
                if found:
                    new.append(found)
                status.update(f"scored {done.num_read} of {total} samples")
        if not done.num_scored:
            reasons = " ".join(done.refusals.in_words())
            raise ConfigError(f"none of {done.num_read} samples can be scored, so nothing was written. {reasons}")
        new.folder.rename(request.into)
    _report(console, path, request, done)
    return done


def _batches(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    while batch := list(islice(samples, BATCH)):
        yield batch


def _score_batch(policy: Policy, batch: list[Sample], request: ScoreOptions, done: Scoring) -> list[Sample]:
    """Return the scored samples of the batch; counts go to `done`."""
    done.num_read += len(batch)
    allowed = [sample for sample in batch if not _refuse(sample, request, done.refusals)]
    scored: list[Sample] = []
    for sample, values in _scored_at_their_temperatures(policy, allowed, done.refusals):
        recorded = sample.log_mu if request.kind == "log-mu" else sample.log_ref
        if recorded is not None:
            done.num_compared += len(values)
            done.sum_abs += sum(abs(a - b) for a, b in zip(recorded, values, strict=True))
        scored.append(_with_scores(sample, values, request, policy))
    done.num_scored += len(scored)
    return scored


def _scored_at_their_temperatures(
    policy: Policy, samples: Sequence[Sample], refusals: Refusals
) -> Iterator[tuple[Sample, tuple[float, ...]]]:
    by_temperature: dict[float, list[Sample]] = {}
    for sample in samples:
        temperature = 1.0 if sample.sampling is None else sample.sampling.scoring_temperature
        by_temperature.setdefault(temperature, []).append(sample)
    for temperature, alike in by_temperature.items():
        policy.temperature = temperature
        yield from scored_rows(policy, alike, refusals)


def _refuse(sample: Sample, request: ScoreOptions, refusals: Refusals) -> bool:
    """Return True, and counted, if what the model computes would not be log μ of the sample."""
    reason = "" if request.kind == "log-ref" else _reason(sample, request)
    if reason:
        refusals.add(reason, f"sample {sample.sample_id}")
    return bool(reason)


def _reason(sample: Sample, request: ScoreOptions) -> str:
    settings = sample.sampling
    if settings is None and not request.assume_plain:
        return "does not say how it was drawn; --assume-plain if it was at temperature 1 with nothing cut off"
    if settings is not None and not sample.draws_at(settings.temperature):
        how = " and ".join(settings.changes) or "temperature 0"
        return (
            f"was drawn greedily or with top-p, top-k or min-p ({how}), so the model's log-probability is not log μ; "
            "with a recorded support that of a cut-off draw would be (docs/exactness.md)"
        )
    if request.is_logging_model:
        return ""
    if sample.policy_version > 0:
        return "was drawn by weights that were trained further; --is-logging-model if these are those weights"
    if sample.model and sample.model not in (request.model, model_path(request.model)):
        return f"was drawn by a model named {printable(sample.model, limit=80)}; --is-logging-model if that is this one"
    return ""


def _with_scores(sample: Sample, values: tuple[float, ...], request: ScoreOptions, policy: Policy) -> Sample:
    if request.kind == "log-ref":
        return replace(sample, log_ref=values)
    # A note on an earlier log_mu does not describe this one.
    metadata = {name: text for name, text in sample.metadata.items() if name != "log_mu_note"}
    return replace(
        sample,
        log_mu=values,
        log_mu_provenance="recomputed",
        metadata={**metadata, "log_mu_model": policy.name},
    )


def _report(console: Console, path: Path, request: ScoreOptions, done: Scoring) -> None:
    name = request.kind.replace("-", "_")
    lines = [f"{done.num_scored} of {done.num_read} samples have {name} by {request.model}, in {request.into}"]
    lines += [f"refused {line}" for line in done.refusals.in_words()]
    gap = done.mean_gap
    if gap is None:
        lines.append(f"no sample had a {name} before, so there is nothing to compare with")
    else:
        lines.append(f"mean |recorded - recomputed| = {gap:.4g} nats over {done.num_compared} tokens")
    for line in lines:
        console.print(Text(printable(line, limit=1000)), soft_wrap=True)
    if request.kind == "log-mu" and gap is not None and gap > LARGEST_GAP:
        warning = (
            f"more than {LARGEST_GAP} nats a token: the model is not the one that drew these, or what was recorded was "
            "not log μ. Do not train on ratios to these values before you know which (klimb audit)."
        )
        console.print(Text(warning, style="yellow"), soft_wrap=True)

"""Who made the data, with which settings, and where its log-probabilities come from."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from klimb.experience.samples import Sample, SamplingSettings
from klimb.findings.audit.evidence import USABLE, at_most, both_at_most, counted, is_truncated, percent, unknown
from klimb.findings.audit.report import Block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding

NO_LOG_MU = "log-probabilities absent or estimated"


TRUNCATED = "truncated sampling"


MOST_NAMED = 4


def provenance_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Models, time, settings, tokenizer, and the origin of log_mu."""
    return Block(
        name="provenance",
        title="Where the data comes from",
        findings=(
            _named("models", [sample.model for sample in samples], "no sample says which model answered"),
            _time_span(samples),
            _named("sources", [sample.source for sample in samples], ""),
            _settings(samples),
            _truncated(samples, thresholds),
            _tokenizers(samples),
            _named("origin of log-probabilities", [sample.log_mu_provenance for sample in samples], ""),
            _no_log_mu(samples, thresholds),
        ),
    )


def _named(name: str, values: Sequence[str], why_unknown: str) -> Finding:
    counts = Counter(values)
    if set(counts) == {""}:
        return unknown(name, why_unknown)
    status = "warning" if "" in counts else "good"
    meaning = f"{counts['']:,} of {counted(len(values), 'sample')} do not say" if "" in counts else ""
    return Finding(name=name, evidence=_listed(counts), status=status, title=meaning, number=float(len(counts)))


def _listed(counts: Counter[str]) -> str:
    total = counts.total()
    named = [f"{key or 'not said'} ({percent(n / total)})" for key, n in counts.most_common(MOST_NAMED)]
    rest = len(counts) - MOST_NAMED
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")


def _time_span(samples: Sequence[Sample]) -> Finding:
    times = [sample.created_at for sample in samples if sample.created_at > 0]
    if not times:
        return unknown("time span", "no sample says when it was made")
    first, last = (datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M") for t in (min(times), max(times)))
    versions = {sample.policy_version for sample in samples}
    return Finding(
        name="time span",
        evidence=f"{first} to {last} UTC, policy versions {min(versions)} to {max(versions)}",
        status="good",
        title="" if len(times) == len(samples) else f"{len(samples) - len(times):,} samples have no time",
        number=max(times) - min(times),
    )


def _settings(samples: Sequence[Sample]) -> Finding:
    counts = Counter(_written(sample.sampling) for sample in samples)
    if set(counts) == {""}:
        return unknown("sampling settings", "no sample says how its tokens were drawn; a cut-off would go unnoticed")
    missing = counts[""]
    return Finding(
        name="sampling settings",
        evidence=_listed(counts),
        status="warning" if missing else "good",
        title=f"{missing:,} samples do not say; a cut-off would go unnoticed there" if missing else "",
        number=float(len(counts)),
    )


def _written(settings: SamplingSettings | None) -> str:
    if settings is None:
        return ""
    parts = [f"temperature {settings.temperature:g}"]
    parts += [f"top-p {settings.top_p:g}"] if settings.top_p < 1 else []
    parts += [f"top-k {settings.top_k}"] if settings.top_k > 0 else []
    parts += [f"min-p {settings.min_p:g}"] if settings.min_p > 0 else []
    parts += [f"at least {settings.min_new_tokens} tokens"] if settings.min_new_tokens > 0 else []
    penalty = settings.repetition_penalty
    parts += [f"repetition penalty {penalty:g}"] if penalty != 1 else []
    return " ".join(parts)


def _truncated(samples: Sequence[Sample], thresholds: Thresholds) -> Finding:
    if all(sample.sampling is None for sample in samples):
        return unknown(TRUNCATED, "no sample says how its tokens were drawn")
    share = _share(is_truncated(sample) for sample in samples)
    num_recorded = sum(sample.support is not None and not is_truncated(sample) for sample in samples)
    beside = f", {percent(num_recorded / len(samples))} with the support recorded" if num_recorded else ""
    return Finding(
        name=TRUNCATED,
        evidence=f"{percent(share)} of samples{beside}",
        status=at_most(share, good=0.0, bad=thresholds.max_truncated_sampling),
        title=(
            "top-p, top-k, min-p, a minimum length or temperature 0: some tokens could not be drawn, so ratios "
            "are biased"
            if share > 0
            else "where something was cut off, ratios are of the policy on what was left"
            if num_recorded
            else "every token could be drawn"
        ),
        threshold=both_at_most("0 %", percent(thresholds.max_truncated_sampling)),
        source="TRL issue 6789, verl issue 6240",
        number=share,
    )


def _tokenizers(samples: Sequence[Sample]) -> Finding:
    names = {sample.tokenizer for sample in samples if sample.response_ids}
    if not names:
        return unknown("tokenizer", "no sample has token ids, only texts")
    if names == {""}:
        return unknown("tokenizer", "no sample says which tokenizer its ids belong to")
    return Finding(
        name="tokenizer",
        evidence=", ".join(sorted(name or "not said" for name in names)[:MOST_NAMED]),
        status="good" if len(names) == 1 else "warning",
        title="" if len(names) == 1 else "ids of different tokenizers must not be scored together",
        threshold="one",
        number=float(len(names)),
    )


def _no_log_mu(samples: Sequence[Sample], thresholds: Thresholds) -> Finding:
    share = _share(sample.log_mu_provenance not in USABLE for sample in samples)
    return Finding(
        name=NO_LOG_MU,
        evidence=f"{percent(share)} of samples",
        status=at_most(share, good=0.0, bad=thresholds.max_unusable_log_mu),
        title=(
            "every sample has log-probabilities that a ratio may use"
            if share == 0
            else "no ratio to the behaviour policy can be formed there; recompute them only with the logging weights"
        ),
        threshold=both_at_most("0 %", percent(thresholds.max_unusable_log_mu)),
        source="own choice",
        number=share,
    )


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values)

"""Every logged number as a row. The document, the glossary and the charts follow from the rows."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from klimb.findings.metrics.metric import Aggregate, Metric
from klimb.findings.metrics.of_conversations import CONVERSATIONS
from klimb.findings.metrics.of_data import DRAWN, SAMPLER_AND_TRAINER, SOURCES
from klimb.findings.metrics.of_losses import CORRECTIONS, OBJECTIVE, WITHOUT_RATIO
from klimb.findings.metrics.of_training import CRITIC, GUARD, HELD_OUT, OPTIMIZER_STEP, REFERENCE, TIME

__all__ = ["METRICS", "TABLES", "Aggregate", "Metric", "explain", "metric_named"]

TABLES: Mapping[str, tuple[Metric, ...]] = MappingProxyType(
    {
        "The objective": OBJECTIVE,
        "Corrections": CORRECTIONS,
        "Losses without a ratio, squared residuals, KTO and pairs": WITHOUT_RATIO,
        "Sampler and trainer": SAMPLER_AND_TRAINER,
        "What was drawn": DRAWN,
        "Conversations": CONVERSATIONS,
        "The optimizer step": OPTIMIZER_STEP,
        "Where a batch came from": SOURCES,
        "The reference": REFERENCE,
        "Held-out problems": HELD_OUT,
        "The guard": GUARD,
        "The critic": CRITIC,
        "Time": TIME,
    }
)
"""By heading of docs/metrics.md, in its order."""

METRICS: tuple[Metric, ...] = tuple(metric for table in TABLES.values() for metric in table)


def metric_named(name: str) -> Metric | None:
    """Find the row of a logged number: its own, else a pattern's, else that of the name behind a source."""
    behind = name.partition("/")[2]
    candidates = [metric for metric in METRICS if metric.name == name]
    candidates += [metric for metric in METRICS if "*" in metric.name and fnmatchcase(name, metric.name)]
    candidates += [metric for metric in METRICS if behind and metric.name == behind]
    return candidates[0] if candidates else None


def explain(names: Iterable[str]) -> Mapping[Metric, Sequence[str]]:
    """Return the rows of these numbers, in the order of the document, each with the names that it describes."""
    found: dict[Metric, list[str]] = {}
    for name in sorted(set(names)):
        metric = metric_named(name)
        if metric is not None:
            found.setdefault(metric, []).append(name)
    return {metric: found[metric] for metric in METRICS if metric in found}

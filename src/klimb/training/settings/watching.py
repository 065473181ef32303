"""Which metric a run is judged by while it goes on: when it stops early, and which checkpoint is its best.

Read without torch.
"""

import difflib
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le

from klimb.declarations import Count, ShortText, configurable, require, require_known
from klimb.findings.metrics import METRICS, metric_named

Mode = Literal["max", "min"]


NO_METRIC = "none"
"""What `best_metric` says where no best checkpoint is kept."""


def check_metric(key: str, name: str) -> None:
    """Return if a run may log a number of this name.

    Raises:
        ValueError: none does; the nearest is named.
    """
    if metric_named(name) is None:
        nearest = difflib.get_close_matches(name, [metric.name for metric in METRICS], n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
        raise ValueError(f"{key} = {name!r} is no metric of a run{hint} docs/metrics.md lists them all")


@configurable
@dataclass(frozen=True, kw_only=True)
class EarlyStoppingSettings:
    """Ends the run in an orderly way once a metric has stopped getting better."""

    metric: ShortText = "evaluation_mean"
    """The number in metrics.jsonl that is watched; docs/metrics.md lists them. A step without it, or where it is not
    finite, is no observation."""
    mode: Mode = "max"
    """Whether more of it is better, or less."""
    patience: Count = 5
    """The run ends after this many observations in a row that are not better than the best before them; for a metric
    of evaluations these are evaluations, not steps."""
    min_change: Annotated[float, Ge(0), Le(1e12)] = 0.0
    """Only a change of more than this counts as better."""

    def __post_init__(self) -> None:
        check_metric("early_stopping.metric", self.metric)
        require_known("mode", self.mode, get_args(Mode))
        require(self.patience >= 1, "patience", self.patience, ">= 1")
        require(self.min_change >= 0, "min_change", self.min_change, ">= 0")

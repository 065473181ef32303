"""What an audit says: findings in blocks, figures as plain numbers, and one verdict. Pages render nothing else."""

from dataclasses import dataclass
from typing import Literal

from klimb.findings.finding import Finding

VerdictKind = Literal["rl-with-correction", "ratio-free-rl", "kto-or-dro", "behaviour-cloning", "collect-more"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture as numbers.

    Attributes:
        kind: `histogram`: x holds the n + 1 edges of n bins and y the counts; `bars`: y and `labels`, x = 0 … n − 1;
            `line` and `points`: x and y of equal length.
        note: what to look for.
    """

    title: str
    kind: Literal["histogram", "bars", "line", "points"]
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    labels: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Findings that answer one question about the data."""

    name: str
    title: str
    findings: tuple[Finding, ...]
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row of the data, chosen to show what decided.

    Attributes:
        tokens: the text of each drawn token; empty where it is not known.
        log_mu: recorded log-probability in nats of each drawn token; empty where there is none.
        log_pi: the same under the policy to train; empty where it was not scored.
    """

    sample_id: str
    prompt: str
    response: str
    reward: float | None
    note: str
    tokens: tuple[str, ...] = ()
    log_mu: tuple[float, ...] = ()
    log_pi: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the data can be used for.

    Attributes:
        reason: what was found, with its number and its threshold.
        decided_by: name of the finding that decided.
        next_action: what to type.
        recipes: names of objectives that fit, the recommended one first.
        interval_half_width: expected half width of a 95 % interval of the mean reward, in units of the reward (a share
            for pass rates); None where there is nothing to estimate it from.
        interval_note: how that number came about.
    """

    kind: VerdictKind
    title: str
    reason: str
    decided_by: str
    next_action: str
    recipes: tuple[str, ...]
    examples: tuple[Example, ...]
    interval_half_width: float | None
    interval_note: str


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The whole answer to: what is this data good for?"""

    data: str
    num_samples: int
    num_groups: int
    blocks: tuple[Block, ...]
    verdict: Verdict

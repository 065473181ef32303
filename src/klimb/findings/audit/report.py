"""What an audit says: uses and counts, findings in blocks, figures, one verdict. Pages render nothing else."""

from dataclasses import dataclass
from typing import Literal

from klimb.findings.audit.evidence import counted, short
from klimb.findings.finding import Finding

Answer = Literal["yes", "partly", "no"]


Counts = tuple[tuple[str, int], ...]
"""Name -> number, the most numerous first."""


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
class Use:
    """One thing to do with the data.

    Attributes:
        name: in words.
        answer: `yes`; `partly`: with a part of the data, or with doubts that the reason names; `no`: not as it is.
        reason: with the numbers.
        num_samples: answers that can be used so.
        recipes: that do it, the recommended one first.
        next_step: what to type, or what to change.
    """

    name: str
    answer: Answer
    reason: str
    num_samples: int
    recipes: tuple[str, ...]
    next_step: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The data in numbers that need no explanation.

    Attributes:
        num_samples: answers that were read.
        num_prompts: different questions, case and white space aside.
        num_rated: of the answers.
        num_good: rated at least `good_from`.
        good_from: 0.5 for ratings between 0 and 1, else the middle of the lowest and the highest; None without any.
        sources: answers by source: rollout, replay, log, feedback.
        kinds: answers by the kind of row that they were imported as.
        files: samples and ratings by the file that brought them, as far as imports were recorded.
        left_out: rows that were never imported, by reason.
        best: the best rated answers, of different questions; none where nothing is rated.
        worst: the worst rated ones; none where all ratings are equal.
    """

    num_samples: int
    num_prompts: int
    num_rated: int
    num_good: int
    good_from: float | None
    sources: Counts = ()
    kinds: Counts = ()
    files: Counts = ()
    left_out: Counts = ()
    best: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()

    @property
    def num_left_out(self) -> int:
        """Rows of all reasons."""
        return sum(number for _, number in self.left_out)


@dataclass(frozen=True, kw_only=True)
class Collecting:
    """How many more rated questions, and what for.

    Attributes:
        num_rated_prompts: different questions with a rated answer.
        num_more: different questions to add, with as many rated answers each; None where no number would do, or none
            can be said.
        half_now: half the 95 % interval of the mean rating; None where there is none.
        half_then: what it would be.
        is_enough: the data show the hoped gain already.
        is_vain: more of such ratings would not help, since they say nothing of the answers.
    """

    num_rated_prompts: int
    num_more: int | None = None
    half_now: float | None = None
    half_then: float | None = None
    is_enough: bool = False
    is_vain: bool = False

    @property
    def in_words(self) -> str:
        """One sentence on what to collect."""
        if not self.num_rated_prompts:
            return "Have answers rated: nothing is, and a few hundred thumbs are a start."
        if self.is_vain:
            return "Find out how these ratings came about before you collect more: more of the same would not help."
        if self.num_more is None or self.half_then is None:
            return "No number of such ratings would be enough: rate so that good and bad answers differ."
        now = "has no interval yet" if self.half_now is None else f"is known to ± {short(self.half_now)}"
        what = f"rated answers to {counted(self.num_more, 'more question')}"
        if self.is_enough:
            return f"Enough for now: the mean rating {now}; {what} would make that ± {short(self.half_then)}."
        then = f"and ± {short(self.half_then)} then" if self.half_now is None else f"to ± {short(self.half_then)} then"
        return f"Collect {what}: the mean rating {now}{' now' if self.half_now else ''}, {then}."


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The whole answer to: what is this data good for?

    Attributes:
        data: its name.
        num_samples: that were read.
        num_groups: of them.
        uses: what it can be used for, one answer each: what the person whose data it is reads first.
        contents: what there is, counted.
        collecting: what to collect next.
        blocks: every check.
        verdict: what the run file follows.
    """

    data: str
    num_samples: int
    num_groups: int
    uses: tuple[Use, ...]
    contents: Contents
    collecting: Collecting
    blocks: tuple[Block, ...]
    verdict: Verdict

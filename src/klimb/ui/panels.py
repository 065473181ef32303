"""The table of what the report draws: how charts stand together, and what one looks for in them.

Which logged numbers a chart draws is said where a number is described, in the rows of `findings.metrics`.
"""

from dataclasses import dataclass, replace

from klimb.findings.metrics import METRICS


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart. A metric's name may hold `*`: each that fits becomes a line, named after what the `*` stands for.

    Attributes:
        title: over the chart.
        unit: of its vertical axis.
        floor: a value that the axis includes.
        ceiling: another.
        is_logarithmic: the axis shows powers of ten.
        note: what one looks for.
        fewest: drawn only if so many of its metrics are there.
        is_hidden_at_zero: drawn only if a value is not 0.
        metrics: pairs of name and label.
    """

    title: str
    unit: str
    floor: float | None = None
    ceiling: float | None = None
    is_logarithmic: bool = False
    note: str = ""
    fewest: int = 1
    is_hidden_at_zero: bool = False
    metrics: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """Charts under one heading."""

    key: str
    title: str
    panels: tuple[Panel, ...]


def _with_metrics(section: Section) -> Section:
    """Give each panel the metrics whose rows name it."""
    panels = tuple(
        replace(panel, metrics=tuple((row.name, row.label) for row in METRICS if row.panel == panel.title))
        for panel in section.panels
    )
    return replace(section, panels=panels)


LEARNING = _with_metrics(
    Section(
        key="learning",
        title="What was learned",
        panels=(
            Panel(
                title="Reward on training batches",
                unit="mean reward",
                note="Of all responses drawn, whatever they are trained on.",
            ),
            Panel(
                title="Accuracy on training batches",
                unit="share correct",
                floor=0.0,
                ceiling=1.0,
            ),
            Panel(
                title="Parts of the reward",
                unit="mean of each part",
                note="A part that alone rises is being gamed.",
                fewest=2,
            ),
            Panel(
                title="Rewards before their weights",
                unit="mean of each reward",
                note="What each of several rewards gave, before its weight and scale.",
                fewest=2,
            ),
            Panel(
                title="Batches that teach nothing",
                unit="share",
                floor=0.0,
                ceiling=1.0,
            ),
        ),
    )
)


POLICY = _with_metrics(
    Section(
        key="policy",
        title="What became of the policy",
        panels=(
            Panel(
                title="Divergence from the reference",
                unit="nats per token",
                floor=0.0,
            ),
            Panel(
                title="Log-probability of the data",
                unit="nats per token",
            ),
            Panel(title="Entropy", unit="nats per token", floor=0.0),
            Panel(
                title="Length of a response",
                unit="tokens",
                floor=0.0,
            ),
            Panel(
                title="Responses cut off",
                unit="share",
                floor=0.0,
                ceiling=1.0,
            ),
            Panel(
                title="Turns and calls of a conversation",
                unit="mean number",
                floor=0.0,
            ),
            Panel(
                title="How conversations go",
                unit="share",
                floor=0.0,
                ceiling=1.0,
            ),
            Panel(
                title="What goes with the length of a dialogue",
                unit="correlation of ranks",
                ceiling=1.0,
                note="A reward that goes with length where being correct does not pays for length.",
            ),
        ),
    )
)


OFF_POLICY = _with_metrics(
    Section(
        key="off-policy",
        title="How far the data was from the policy",
        panels=(
            Panel(
                title="Effective sample size",
                unit="share of the samples",
                floor=0.0,
                ceiling=1.0,
            ),
            Panel(
                title="Clipped, by branch",
                unit="share of the units",
                floor=0.0,
                note="Always 0: the clip never acts.",
            ),
            Panel(
                title="Weights w = π/μ",
                unit="w, powers of ten",
                is_logarithmic=True,
            ),
            Panel(
                title="Distance between behaviour and policy",
                unit="nats per token",
                floor=0.0,
            ),
            Panel(
                title="Staleness",
                unit="optimizer steps",
                floor=0.0,
            ),
            Panel(
                title="Sampler against trainer",
                unit="nats per token",
                floor=0.0,
                note="The same tokens under the same weights: should be 0 up to rounding.",
            ),
        ),
    )
)


OPTIMIZER = _with_metrics(
    Section(
        key="optimizer",
        title="The optimizer",
        panels=(
            Panel(title="Gradient norm before it is cut", unit="2-norm", floor=0.0),
            Panel(title="Learning rate", unit="1", floor=0.0),
            Panel(title="Loss", unit="1"),
            Panel(
                title="The critic",
                unit="1",
                ceiling=1.0,
            ),
            Panel(
                title="Values and returns",
                unit="reward",
            ),
            Panel(
                title="Trouble",
                unit="count a step",
                floor=0.0,
                is_hidden_at_zero=True,
            ),
        ),
    )
)


GUARD = _with_metrics(
    Section(
        key="guard",
        title="Quality kept: base metrics",
        panels=(
            Panel(title="Perplexity of held-out text", unit="1"),
            Panel(
                title="General tasks",
                unit="share correct",
                floor=0.0,
                ceiling=1.0,
            ),
            Panel(title="Checks of your own", unit="share that violates", floor=0.0),
            Panel(
                title="Form of answers to general problems",
                unit="share",
                floor=0.0,
                ceiling=1.0,
            ),
            Panel(
                title="Form of the rollouts",
                unit="share",
                floor=0.0,
                ceiling=1.0,
            ),
        ),
    )
)


TIME = _with_metrics(
    Section(
        key="time",
        title="Where the time went",
        panels=(
            Panel(title="Speed", unit="tokens per second", floor=0.0),
            Panel(
                title="Seconds a step",
                unit="seconds",
                floor=0.0,
            ),
        ),
    )
)


SECTIONS = (LEARNING, POLICY, OFF_POLICY, OPTIMIZER, GUARD, TIME)


LEFT_OUT = (
    "step",
    "evaluation_*",
    "step_seconds",
    "*epoch",
    "optimizer_steps",
    "num_tokens_generated",
    "elapsed_seconds",
)
"""Patterns of names that no chart of the remaining metrics shows: axes, and what other parts of the page tell."""

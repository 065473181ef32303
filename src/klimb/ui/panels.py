"""The table of what the report draws: which logged numbers stand together, and what one looks for in them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart. A metric's name may hold `*`: each that fits becomes a line, named after what the `*` stands for.

    Attributes:
        title: over the chart.
        unit: of its vertical axis.
        metrics: pairs of name and label.
        floor: a value that the axis includes.
        ceiling: another.
        is_logarithmic: the axis shows powers of ten.
        note: what one looks for.
        fewest: drawn only if so many of its metrics are there.
        is_hidden_at_zero: drawn only if a value is not 0.
    """

    title: str
    unit: str
    metrics: tuple[tuple[str, str], ...]
    floor: float | None = None
    ceiling: float | None = None
    is_logarithmic: bool = False
    note: str = ""
    fewest: int = 1
    is_hidden_at_zero: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """Charts under one heading."""

    key: str
    title: str
    panels: tuple[Panel, ...]


LEARNING = Section(
    key="learning",
    title="What was learned",
    panels=(
        Panel(
            title="Reward on training batches",
            unit="mean reward",
            metrics=(("reward_mean", "reward"),),
            note="Of all responses drawn, whatever they are trained on.",
        ),
        Panel(
            title="Accuracy on training batches",
            unit="share correct",
            metrics=(("accuracy", "correct"),),
            floor=0.0,
            ceiling=1.0,
        ),
        Panel(
            title="Parts of the reward",
            unit="mean of each part",
            metrics=(("reward_part_*", "*"),),
            note="A part that alone rises is being gamed.",
            fewest=2,
        ),
        Panel(
            title="Batches that teach nothing",
            unit="share",
            metrics=(
                ("groups_dropped_fraction", "groups dropped: all rewards equal"),
                ("zero_advantage_fraction", "responses with advantage 0"),
            ),
            floor=0.0,
            ceiling=1.0,
        ),
    ),
)


POLICY = Section(
    key="policy",
    title="What became of the policy",
    panels=(
        Panel(
            title="Divergence from the reference",
            unit="nats per token",
            metrics=(
                ("kl_pi_ref", "reverse, KL(π‖ref)"),
                ("kl_ref_pi", "forward, KL(ref‖π)"),
                ("kl_pi_ref_average", "reverse, averaged"),
            ),
            floor=0.0,
        ),
        Panel(
            title="Log-probability of the data",
            unit="nats per token",
            metrics=(
                ("log_pi_mean", "log π"),
                ("log_pi_ref_mean", "log π − log ref"),
                ("log_pi_anchor_mean", "log π − log anchor"),
            ),
        ),
        Panel(title="Entropy", unit="nats per token", metrics=(("entropy", "entropy"),), floor=0.0),
        Panel(
            title="Length of a response",
            unit="tokens",
            metrics=(("length_mean", "mean"), ("length_max", "longest")),
            floor=0.0,
        ),
        Panel(
            title="Responses cut off",
            unit="share",
            metrics=(("truncated_fraction", "cut off at max_new_tokens"),),
            floor=0.0,
            ceiling=1.0,
        ),
    ),
)


OFF_POLICY = Section(
    key="off-policy",
    title="How far the data was from the policy",
    panels=(
        Panel(
            title="Effective sample size",
            unit="share of the samples",
            metrics=(("ess_token", "token"), ("ess_normalised", "normalised"), ("ess_sequence", "whole response")),
            floor=0.0,
            ceiling=1.0,
        ),
        Panel(
            title="Clipped, by branch",
            unit="share of the units",
            metrics=(
                ("clip_low_fraction", "low"),
                ("clip_high_fraction", "high"),
                ("clip_ceiling_fraction", "ceiling"),
            ),
            floor=0.0,
            note="Always 0: the clip never acts.",
        ),
        Panel(
            title="Weights w = π/μ",
            unit="w, powers of ten",
            metrics=(("w_p01", "1 % quantile"), ("w_p50", "median"), ("w_p99", "99 % quantile"), ("w_max", "largest")),
            is_logarithmic=True,
        ),
        Panel(
            title="Distance between behaviour and policy",
            unit="nats per token",
            metrics=(("kl_mu_pi", "KL(μ‖π)"),),
            floor=0.0,
        ),
        Panel(
            title="Staleness",
            unit="optimizer steps",
            metrics=(("*/age_mean", "age of * samples"), ("reference_age", "age of the reference")),
            floor=0.0,
        ),
        Panel(
            title="Sampler against trainer",
            unit="nats per token",
            metrics=(
                ("mismatch_mean_abs", "mean"),
                ("mismatch_max_abs", "largest"),
                ("mismatch_k3", "KL(sampler‖trainer)"),
            ),
            floor=0.0,
            note="The same tokens under the same weights: should be 0 up to rounding.",
        ),
    ),
)


OPTIMIZER = Section(
    key="optimizer",
    title="The optimizer",
    panels=(
        Panel(title="Gradient norm before it is cut", unit="2-norm", metrics=(("grad_norm", "norm"),), floor=0.0),
        Panel(title="Learning rate", unit="1", metrics=(("learning_rate", "learning rate"),), floor=0.0),
        Panel(title="Loss", unit="1", metrics=(("loss", "loss"),)),
        Panel(
            title="The critic",
            unit="1",
            metrics=(("critic_explained_variance", "explained variance"),),
            ceiling=1.0,
        ),
        Panel(
            title="Values and returns",
            unit="reward",
            metrics=(("critic_value_mean", "value V"), ("critic_return_mean", "return G")),
        ),
        Panel(
            title="Trouble",
            unit="count a step",
            metrics=(
                ("num_errors", "responses without a reward"),
                ("num_skipped_steps", "steps skipped"),
                ("num_bound_hits", "weights bounded"),
            ),
            floor=0.0,
            is_hidden_at_zero=True,
        ),
    ),
)


GUARD = Section(
    key="guard",
    title="Quality kept: base metrics",
    panels=(
        Panel(title="Perplexity of held-out text", unit="1", metrics=(("guard/perplexity", "perplexity"),)),
        Panel(
            title="General tasks",
            unit="share correct",
            metrics=(("guard/general_mean", "mean"), ("guard/general/*", "*")),
            floor=0.0,
            ceiling=1.0,
        ),
        Panel(
            title="Form of answers to general problems",
            unit="share",
            metrics=(
                ("guard/refusal_fraction", "refusals"),
                ("guard/empty_fraction", "empty"),
                ("guard/repetition_fraction", "repetitions"),
            ),
            floor=0.0,
            ceiling=1.0,
        ),
        Panel(
            title="Form of the rollouts",
            unit="share",
            metrics=(
                ("guard/format_valid_fraction", "valid format"),
                ("guard/rollout_refusal_fraction", "refusals"),
                ("guard/rollout_empty_fraction", "empty"),
                ("guard/rollout_repetition_fraction", "repetitions"),
            ),
            floor=0.0,
            ceiling=1.0,
        ),
    ),
)


TIME = Section(
    key="time",
    title="Where the time went",
    panels=(
        Panel(title="Speed", unit="tokens per second", metrics=(("tokens_per_second", "tokens/s"),), floor=0.0),
        Panel(
            title="Seconds a step",
            unit="seconds",
            metrics=(
                ("sample_seconds", "drawing"),
                ("score_seconds", "rewards"),
                ("reference_seconds", "reference"),
                ("update_seconds", "update"),
            ),
            floor=0.0,
        ),
    ),
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

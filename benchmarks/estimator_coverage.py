"""How often the 95 % intervals of the off-policy estimates hold the exact value, on the enumerated tiny world.

    PYTHONPATH=. python benchmarks/estimator_coverage.py

Sixteen prompts, each with its own behaviour policy, policy and rewards by token over the 15 possible responses of at
most three tokens (tests/oracle/world.py). A data set draws prompts with replacement and four responses of μ to each.
π is μ with noise of two sizes on its logits. The exact value is a sum over all responses.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from tests.oracle import world

from klimb.findings.off_policy_evaluation import Estimate, LoggedData, estimate_values

NUM_WORLDS, NUM_RESPONSES = 16, 4
CLIP = 2.0
OVERLAPS = {"near": 0.5, "far": 2.0}
SIZES = (50, 400)


@dataclass(frozen=True)
class Worlds:
    """Token probabilities and rewards `[worlds, sequences, time]`."""

    mu: np.ndarray
    pi: np.ndarray
    rewards: np.ndarray

    @property
    def value(self) -> float:
        """Mean over the prompts of E_π[r]."""
        return float((self.pi.prod(2) * self.rewards.sum(2)).sum(1).mean())

    @property
    def logged_value(self) -> float:
        """Mean over the prompts of E_μ[r]."""
        return float((self.mu.prod(2) * self.rewards.sum(2)).sum(1).mean())

    @property
    def ess_share(self) -> float:
        """The share of responses that count, with endlessly many: 1/E_μ[w²]."""
        mu, pi = self.mu.prod(2), self.pi.prod(2)
        return float(1 / (pi**2 / mu).sum(1).mean())


def make_worlds(distance: float) -> Worlds:
    """Return the prompts; `distance` is the size of the noise on π's logits."""
    mu, pi, rewards = [], [], []
    for seed in range(NUM_WORLDS):
        table = world.logits(seed)
        mu.append(world.token_probabilities(world.conditionals(table)))
        pi.append(world.token_probabilities(world.conditionals(table + world.logits(100 + seed, scale=distance))))
        rewards.append(np.where(world.MASK, world.prefix_rewards(200 + seed), 0.0))
    return Worlds(np.stack(mu), np.stack(pi), np.stack(rewards))


def draw(worlds: Worlds, num_prompts: int, generator: np.random.Generator) -> LoggedData:
    """One data set; every drawn prompt is a prompt of its own, even if it was drawn before."""
    chosen = generator.integers(NUM_WORLDS, size=num_prompts)
    cumulative = worlds.mu.prod(2).cumsum(1)
    uniform = generator.random((num_prompts, NUM_RESPONSES))
    drawn = (uniform[:, :, None] > cumulative[chosen][:, None, :]).sum(2).clip(max=len(world.SEQUENCES) - 1).ravel()
    prompt = np.arange(num_prompts).repeat(NUM_RESPONSES)
    which = chosen[prompt]
    token_rewards = worlds.rewards[which, drawn]
    return LoggedData(
        rewards=token_rewards.sum(1),
        token_log_w=np.log(worlds.pi / worlds.mu)[which, drawn],
        mask=world.MASK[drawn],
        prompt_index=prompt,
        is_cut=world.LENGTHS[drawn] == world.MAX_LENGTH,
        token_rewards=token_rewards,
    )


def row(found: Sequence[Estimate], exact: float) -> list[str]:
    """Name, bias, root mean square error, mean width and coverage of one estimator over data sets."""
    values = np.array([estimate.value for estimate in found])
    low, high = (np.array([getattr(estimate, end) for estimate in found]) for end in ("low", "high"))
    covered = ((low <= exact) & (exact <= high)).mean()
    bias, error = values.mean() - exact, values.std(ddof=1) / np.sqrt(len(values))
    warned = np.mean([bool(estimate.warnings) for estimate in found])
    return [
        found[0].name,
        f"{bias:+.4f} ± {error:.4f}",
        f"{np.sqrt(((values - exact) ** 2).mean()):.3f}",
        f"{(high - low).mean():.3f}",
        f"{covered:.1%} ± {np.sqrt(covered * (1 - covered) / len(values)):.1%}",
        f"{warned:.0%}",
    ]


def main() -> None:
    """Print one table for each overlap and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-sets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console(width=132)
    for overlap, distance in OVERLAPS.items():
        worlds = make_worlds(distance)
        for num_prompts in SIZES:
            generator = np.random.default_rng(arguments.seed)
            sets = [
                estimate_values(draw(worlds, num_prompts, generator), clip=CLIP, seed=number)
                for number in range(arguments.num_sets)
            ]
            title = (
                f"{overlap} (1/E(w²) = {worlds.ess_share:.3f}), {num_prompts} prompts of {NUM_RESPONSES} responses, "
                f"{arguments.num_sets} data sets; exact value {worlds.value:.4f}, logged mean {worlds.logged_value:.4f}"
            )
            table = Table(title=title, title_justify="left")
            for name in ("estimator", "bias ± its error", "RMSE", "mean width", "95 % interval holds it", "warned"):
                table.add_column(name, justify="left" if name == "estimator" else "right")
            for number in range(len(sets[0])):
                table.add_row(*row([found[number] for found in sets], worlds.value))
            console.print(table)


if __name__ == "__main__":
    main()

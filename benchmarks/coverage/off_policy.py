"""Off-policy estimates: how often an interval is shown, and how often those shown hold the truth.

Weights have a true ESS of 3 to 100 %: log-normal; sums over 5, 20 or 100 tokens with a rare one that π prefers; one
rare answer in fifty (near-deterministic); prompts that differ in how far π is; power-law tails. Rewards are 0 or 1 at
several rates under π, alike for all weights or not, alike within prompts or not; or exponential. The truth is a sum or
an integral over the weights' distribution under π.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special
from tests.oracle import world as oracle

from benchmarks.coverage.cells import Alarms, Cell, coverage
from klimb.findings.off_policy_evaluation import (
    LoggedData,
    doubly_robust,
    ips,
    per_decision,
    reason_against_intervals,
    self_normalised_doubly_robust,
    snips,
    with_intervals,
)
from klimb.findings.statistics import ALPHA, Interval, ratio_sum
from klimb.findings.statistics.resampling import resampled_sums

Numbers = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int], bool], Numbers]
"""Log-weights `[prompts, answers]`, of answers of μ, or of π if asked."""


SHARES = (0.03, 0.06, 0.15, 0.3, 0.6, 0.95)
SIZES = ((20, 4), (50, 1), (50, 4), (200, 2), (1000, 1))
NUM_RESAMPLES = 400
FAR = 0.1
"""A true ESS below this must have no interval."""


@dataclass(frozen=True)
class Rewards:
    """How rewards are drawn: 0 or 1 at a rate under π, or exponential ones.

    Attributes:
        rate: under π; 0 for exponential rewards.
        slope: change of the log-odds (of the log-mean) with a standard deviation of the log-weight.
        spread: standard deviation of prompts' own log-odds.
    """

    rate: float
    slope: float = 0.0
    spread: float = 0.0

    @property
    def name(self) -> str:
        """As the table shows it."""
        kind = f"rate {self.rate:g}" if self.rate else "exponential rewards"
        return kind + (f", slope {self.slope:+g}" if self.slope else "") + (", prompts differ" if self.spread else "")


REWARDS = (
    Rewards(0.05),
    Rewards(0.5),
    Rewards(0.95),
    Rewards(0.8, spread=1.5),
    Rewards(0.3, slope=1.5),
    Rewards(0.9, slope=1.5),
    Rewards(0.7, slope=-1.5),
    Rewards(0.0),
    Rewards(0.0, slope=0.5),
)


def log_normal(share: float) -> Draw:
    """Return normal log-weights: sums over very many tokens."""
    variance = -math.log(share)
    return lambda g, size, of_pi: g.normal(variance / 2 * (1 if of_pi else -1), math.sqrt(variance), size=size)


def rare_token(share: float, length: int, chance: float) -> Draw:
    """Each of `length` tokens is a rare one with this chance under μ, and with a larger one under π."""
    excess = math.sqrt((share ** (-1 / length) - 1) * chance * (1 - chance))
    of_pi_chance = chance + excess

    def draw(g: np.random.Generator, size: tuple[int, int], of_pi: bool) -> Numbers:
        count = g.binomial(length, of_pi_chance if of_pi else chance, size=size)
        rare, other = math.log(of_pi_chance / chance), math.log((1 - of_pi_chance) / (1 - chance))
        return count * rare + (length - count) * other

    return draw


def mixed_prompts(share: float) -> Draw:
    """Log-normal weights whose variance is uniform over prompts, from 0 to the largest that gives this ESS."""
    low, high = 0.0, 50.0
    for _ in range(100):
        largest = (low + high) / 2
        low, high = (largest, high) if math.expm1(largest) / largest < 1 / share else (low, largest)

    def draw(g: np.random.Generator, size: tuple[int, int], of_pi: bool) -> Numbers:
        variance = g.uniform(0, largest, size=(size[0], 1))
        return g.normal(size=size) * np.sqrt(variance) + variance / 2 * (1 if of_pi else -1)

    return draw


def power_law(exponent: float) -> Draw:
    """P(w > x) = (least/x)^exponent, of mean 1."""
    least = (exponent - 1) / exponent
    return lambda g, size, of_pi: math.log(least) - np.log(1 - g.random(size)) / (exponent - of_pi)


def shapes() -> Iterator[tuple[str, float, Draw]]:
    """Name, true ESS share, and how to draw."""
    for share in SHARES:
        yield "log-normal", share, log_normal(share)
        yield "5 tokens", share, rare_token(share, 5, 0.05)
        yield "100 tokens", share, rare_token(share, 100, 0.05)
        yield "20 even tokens", share, rare_token(share, 20, 0.4)
        yield "one rare answer", max(share, 0.05), rare_token(max(share, 0.05), 1, 0.02)
        yield "prompts differ", share, mixed_prompts(share)
    yield "power 1.5", 0.0, power_law(1.5)
    yield "power 3", 3 / 4, power_law(3.0)
    yield "power 5", 15 / 16, power_law(5.0)


@dataclass(frozen=True)
class World:
    """Weights and rewards with the exact value of π, to within the error of 200,000 draws of π."""

    draw: Draw
    rewards: Rewards
    centre: float
    scale: float
    intercept: float
    value: float

    def expected(self, log_w: Numbers, ability: Numbers | float = 0.0) -> Numbers:
        """Chance of a reward of 1, or the mean reward, given the log-weight."""
        tilt = self.rewards.slope * np.clip((log_w - self.centre) / self.scale, -5, 5) + ability
        return special.expit(self.intercept + tilt) if self.rewards.rate else np.exp(tilt)

    def data(self, size: tuple[int, int], g: np.random.Generator) -> LoggedData:
        """One data set of μ."""
        log_w = self.draw(g, size, False)
        mean = self.expected(log_w, self.rewards.spread * g.normal(size=(size[0], 1)))
        rewards = (g.random(size) < mean).astype(np.float64) if self.rewards.rate else mean * g.exponential(size=size)
        number = size[0] * size[1]
        return LoggedData(
            rewards=rewards.ravel(),
            token_log_w=log_w.reshape(number, 1),
            mask=np.ones((number, 1), dtype=bool),
            prompt_index=np.arange(size[0]).repeat(size[1]),
            is_cut=np.zeros(number, dtype=bool),
        )


def make_world(draw: Draw, rewards: Rewards) -> World:
    """Find the intercept of the rate under π, and the exact value, on a fixed large draw of π."""
    g = np.random.default_rng(12345)
    of_pi = draw(g, (200_000, 1), True)
    scale = float(draw(g, (20_000, 1), False).std()) or 1.0
    ability = rewards.spread * g.normal(size=of_pi.shape)
    world = World(draw, rewards, float(np.median(of_pi)), scale, 0.0, 0.0)
    low, high = -20.0, 20.0
    for _ in range(25 if rewards.rate else 0):
        middle = (low + high) / 2
        at = replace(world, intercept=middle)
        is_low = at.expected(of_pi[:10_000], ability[:10_000]).mean() < rewards.rate
        low, high = (middle, high) if is_low else (low, middle)
    world = replace(world, intercept=(low + high) / 2 if rewards.rate else 0.0)
    return replace(world, value=float(world.expected(of_pi, ability).mean()))


QUOTED = {"ips": ips, "snips": snips, "doubly-robust": doubly_robust, "sn-doubly-robust": self_normalised_doubly_robust}
"""Estimators that have intervals; `per-decision` is `ips` where a reward belongs to a whole response."""


@dataclass(frozen=True)
class Outcome:
    """One data set: what it was drawn from, the interval of each estimator of `QUOTED`, and the one of before."""

    shape: str
    share: float
    size: tuple[int, int]
    rewards: str
    value: float
    found: dict[str, Interval]
    before: dict[str, tuple[float, float]]


def outcomes(num_sets: int, generator: np.random.Generator) -> Iterator[Outcome]:
    """Yield data sets of each shape and ESS; sizes and rewards take turns."""
    for shape, share, draw in shapes():
        worlds = [make_world(draw, rewards) for rewards in REWARDS]
        for number in range(num_sets):
            world, size = worlds[number % len(worlds)], SIZES[number % len(SIZES)]
            data = world.data(size, generator)
            # Where the policies are too far apart the question is only whether an interval is shown.
            is_hidden = share < FAR and bool(reason_against_intervals(data))
            found = {} if is_hidden else intervals_of(data)
            before = {} if share < FAR else intervals_before(data)
            yield Outcome(shape, share, size, world.rewards.name, world.value, found, before)


def intervals_of(data: LoggedData) -> dict[str, Interval]:
    """Return the interval of each estimator."""
    made = with_intervals(data, [make(data) for make in QUOTED.values()], num_resamples=NUM_RESAMPLES)
    return {each.name: each.interval for each in made}


def intervals_before(data: LoggedData) -> dict[str, tuple[float, float]]:
    """Return the BCa interval over prompts (Efron 1987) of each estimator, always shown: the rule of caa7b0e."""
    sums = {
        name: np.stack([data.by_prompt(column) for ratio in make(data).ratios for column in ratio], axis=1)
        for name, make in QUOTED.items()
    }
    drawn = resampled_sums(np.concatenate(list(sums.values()), axis=1), num_resamples=NUM_RESAMPLES)
    found: dict[str, tuple[float, float]] = {}
    start = 0
    for name, own in sums.items():
        found[name] = bca(own, drawn[:, start : start + own.shape[1]])
        start += own.shape[1]
    return found


def bca(sums: Numbers, drawn: Numbers) -> tuple[float, float]:
    """Return the bias-corrected and accelerated percentiles of a sum of ratios."""
    value, values = float(ratio_sum(sums.sum(axis=0, keepdims=True))[0]), ratio_sum(drawn)
    below = ((values < value).sum() + 0.5 * (values == value).sum()) / len(values)
    bias = special.ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    left_out = ratio_sum(sums.sum(axis=0) - sums)
    influence = left_out.mean() - left_out
    size = float((influence**2).sum())
    acceleration = float((influence**3).sum() / (6 * size**1.5)) if size > 0 else 0.0
    z = bias + special.ndtri(np.array([ALPHA / 2, 1 - ALPHA / 2]))
    stretch = 1 - acceleration * z
    levels = np.where(stretch > 0, special.ndtr(bias + z / np.where(stretch > 0, stretch, 1)), (z > 0).astype(float))
    low, high = np.quantile(values, levels)
    return float(low), float(high)


def cells(num_sets: int, generator: np.random.Generator) -> Iterator[Cell]:
    """Yield coverage by ESS with sizes, rewards and shapes; where the true ESS is too low, how often one was shown."""
    drawn = list(outcomes(num_sets, generator))
    near = [each for each in drawn if each.share >= FAR]
    graded = {rewards.name for rewards in REWARDS if not rewards.rate}
    yield from _grouped(near, lambda each: _by_size(each, "graded" if each.rewards in graded else "0 or 1"))
    yield from _grouped(near, lambda each: f"ESS {each.share:.0%}, {each.rewards}")
    yield from _grouped(near, lambda each: f"ESS {each.share:.0%}, {each.shape}")
    far = [each for each in drawn if each.share < FAR]
    for case, group in _groups(far, lambda each: f"ESS {each.share:.0%}, {each.shape}").items():
        rate = float(np.mean([bool(each.found) for each in group]))
        yield Alarms(
            number="off-policy interval shown", case=case, num_sets=len(group), rate=rate, truth="π is too far"
        )
    yield from enumerated_cells(num_sets, generator)


def _by_size(each: Outcome, kind: str) -> str:
    return f"ESS {each.share:.0%}, {each.size[0]} prompts x {each.size[1]}, rewards {kind}"


def _grouped(drawn: Sequence[Outcome], case_of: Callable[[Outcome], str]) -> Iterator[Cell]:
    for case, group in _groups(drawn, case_of).items():
        truths = [each.value for each in group]
        for name in QUOTED:
            ends = [each.before[name] for each in group]
            held = [low <= truth <= high for (low, high), truth in zip(ends, truths, strict=True)]
            intervals = [each.found[name] for each in group]
            yield coverage(intervals, truths, number=f"estimate: {name}", case=case, before=float(np.mean(held)))


def _groups(drawn: Sequence[Outcome], case_of: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for each in drawn:
        groups.setdefault(case_of(each), []).append(each)
    return groups


NUM_WORLDS, NUM_RESPONSES = 16, 4
DISTANCES = {"near": 0.5, "far": 2.0}
"""Size of the noise on π's logits in the enumerated worlds."""


@dataclass(frozen=True)
class Enumerated:
    """Prompts whose 15 possible responses are known: token probabilities and rewards `[worlds, sequences, time]`."""

    mu: Numbers
    pi: Numbers
    rewards: Numbers

    @property
    def value(self) -> float:
        """Mean over the prompts of E_π[r]: a sum over all responses."""
        return float((self.pi.prod(2) * self.rewards.sum(2)).sum(1).mean())

    def data(self, num_prompts: int, generator: np.random.Generator) -> LoggedData:
        """One data set with rewards by token; every drawn prompt is its own, even if it was drawn before."""
        chosen = generator.integers(NUM_WORLDS, size=num_prompts)
        cumulative = self.mu.prod(2).cumsum(1)
        uniform = generator.random((num_prompts, NUM_RESPONSES))
        last = len(oracle.SEQUENCES) - 1
        drawn = (uniform[:, :, None] > cumulative[chosen][:, None, :]).sum(2).clip(max=last).ravel()
        prompt = np.arange(num_prompts).repeat(NUM_RESPONSES)
        which = chosen[prompt]
        token_rewards = self.rewards[which, drawn]
        return LoggedData(
            rewards=token_rewards.sum(1),
            token_log_w=np.log(self.pi / self.mu)[which, drawn],
            mask=oracle.MASK[drawn],
            prompt_index=prompt,
            is_cut=oracle.LENGTHS[drawn] == oracle.MAX_LENGTH,
            token_rewards=token_rewards,
        )


def make_enumerated(distance: float) -> Enumerated:
    """Return prompts with a behaviour policy, a policy and rewards by token each (tests/oracle/world.py)."""
    mu, pi, rewards = [], [], []
    for seed in range(NUM_WORLDS):
        table = oracle.logits(seed)
        moved = table + oracle.logits(100 + seed, scale=distance)
        mu.append(oracle.token_probabilities(oracle.conditionals(table)))
        pi.append(oracle.token_probabilities(oracle.conditionals(moved)))
        rewards.append(np.where(oracle.MASK, oracle.prefix_rewards(200 + seed), 0.0))
    return Enumerated(np.stack(mu), np.stack(pi), np.stack(rewards))


def enumerated_cells(num_sets: int, generator: np.random.Generator) -> Iterator[Cell]:
    """Yield coverage where the truth is a sum over all responses, with rewards by token."""
    for label, distance in DISTANCES.items():
        worlds = make_enumerated(distance)
        for num_prompts in (50, 400):
            sets = [worlds.data(num_prompts, generator) for _ in range(num_sets)]
            for name, make in {**QUOTED, "per-decision": per_decision}.items():
                found = [with_intervals(data, [make(data)], num_resamples=NUM_RESAMPLES)[0].interval for data in sets]
                case = f"enumerated, {label}, {num_prompts} prompts x {NUM_RESPONSES}"
                yield coverage(found, worlds.value, number=f"estimate: {name}", case=case)

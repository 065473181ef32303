"""How often the gate promotes what is not better, and after how many ratings it promotes what is.

A world of 200 prompts with 30 answers each: people like an answer with a chance that hangs on 256 features of it, the
serving policy has preferences of its own. A candidate is a fit to ratings of training, a number of steps along it; the
held-out ratings are of other prompts. The gate is asked after every 10 ratings.

    python benchmarks/promotion_gate.py                  # minutes on one core
    python benchmarks/promotion_gate.py --updates 20     # a look at it

Null updates are fits to shuffled ratings, and noise on each answer by itself. Both are as far from the serving policy
as an update that is truly 10 points better.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.findings.promotion import (
    Decision,
    LiveRating,
    RatedChange,
    decide,
    live_evidence,
    preference_evidence,
)

Array = NDArray[np.float64]
Places = NDArray[np.int64]

NUM_PROMPTS, NUM_ANSWERS, NUM_FEATURES = 200, 30, 256
NUM_TRAINING = 400
LOOK_EVERY, MOST_RATINGS = 10, 500
CHECKPOINTS = (50, 100, 150, 200, 300, 400, 500)


@dataclass(frozen=True, kw_only=True)
class World:
    """Answers, what people like, and who serves.

    Attributes:
        features: `[prompts, answers, features]`.
        liked: chance that an answer is liked.
        serving: probabilities of the serving policy, `[prompts, answers]`.
    """

    features: Array
    liked: Array
    serving: Array

    def value(self, policy: Array) -> float:
        """Return the share of the policy's answers that is liked."""
        return float((policy * self.liked).sum(axis=1).mean())

    def draw(self, policy: Array, prompts: Places, rng: np.random.Generator) -> tuple[Places, Array]:
        """Return an answer to each of the prompts, and its ratings."""
        cumulative = policy[prompts].cumsum(axis=1)
        answers = (rng.random((len(prompts), 1)) > cumulative).sum(axis=1).clip(max=NUM_ANSWERS - 1)
        return answers, (rng.random(len(prompts)) < self.liked[prompts, answers]).astype(np.float64)


def make_world(rng: np.random.Generator, *, liked_share: float) -> World:
    """Return a world in which about this share of the serving policy's answers is liked."""
    features = rng.normal(size=(NUM_PROMPTS, NUM_ANSWERS, NUM_FEATURES))
    taste, habit = (rng.normal(size=NUM_FEATURES) / np.sqrt(NUM_FEATURES) for _ in range(2))
    serving = softmax(features @ habit)
    liking = 2 * (features @ taste)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        share = float((serving * sigmoid(liking + middle)).sum(axis=1).mean())
        low, high = (middle, high) if share < liked_share else (low, middle)
    return World(features=features, liked=sigmoid(liking + (low + high) / 2), serving=serving)


def tilt(serving: Array, direction: Array, size: float) -> Array:
    """Return the policy ∝ serving·exp(size·direction)."""
    return softmax(np.log(serving) + size * direction)


def fit(world: World, rng: np.random.Generator, *, is_shuffled: bool) -> Array:
    """Return what 400 ratings teach of each answer: ridge regression of the ratings on the features."""
    prompts = rng.integers(0, NUM_PROMPTS // 2, NUM_TRAINING)
    answers, ratings = world.draw(world.serving, prompts, rng)
    if is_shuffled:
        ratings = rng.permutation(ratings)
    design = world.features[prompts, answers]
    weights = np.linalg.solve(design.T @ design + 100 * np.eye(NUM_FEATURES), design.T @ (ratings - ratings.mean()))
    return world.features @ weights


def size_of_gain(world: World, direction: Array, gain: float) -> float:
    """Return the size of the tilt that is truly better by this much; the largest tried if none is."""
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        reached = world.value(tilt(world.serving, direction, middle)) - world.value(world.serving) >= gain
        low, high = (low, middle) if reached else (middle, high)
    return high


def spread(world: World, policy: Array) -> float:
    """Return the standard deviation of log π − log μ under the serving policy."""
    change = np.log(policy) - np.log(world.serving)
    mean = (world.serving * change).sum(axis=1, keepdims=True)
    return float(np.sqrt((world.serving * (change - mean) ** 2).sum(axis=1).mean()))


def size_of_spread(world: World, direction: Array, wanted: float) -> float:
    """Return the size of the tilt whose log-weights spread so far."""
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if spread(world, tilt(world.serving, direction, middle)) > wanted else (middle, high)
    return high


def look_again_and_again(evidence_of: Callable[[int], Decision]) -> int:
    """Return after how many ratings the candidate is promoted; 0 if it never is."""
    for number in range(LOOK_EVERY, MOST_RATINGS + 1, LOOK_EVERY):
        decision = evidence_of(number)
        if decision.verdict == "promote":
            return number
        if decision.verdict == "reject":
            return 0
    return 0


def judge_held_out(world: World, candidate: Array, rng: np.random.Generator, level: float) -> int:
    """Return after how many held-out ratings of the serving policy's answers the candidate is promoted."""
    prompts = rng.integers(NUM_PROMPTS // 2, NUM_PROMPTS, MOST_RATINGS)
    answers, ratings = world.draw(world.serving, prompts, rng)
    change = (np.log(candidate) - np.log(world.serving))[prompts, answers]
    rows = [RatedChange(rating=float(r), change=float(c)) for r, c in zip(ratings, change, strict=True)]
    return look_again_and_again(
        lambda number: decide(preference_evidence(rows[:number]), level=level, give_up_after=10 * MOST_RATINGS)
    )


def judge_live(world: World, candidate: Array, rng: np.random.Generator, level: float, fraction: float) -> int:
    """Return after how many ratings of all traffic the candidate is promoted."""
    is_candidate = rng.random(MOST_RATINGS) < fraction
    prompts = rng.integers(0, NUM_PROMPTS, MOST_RATINGS)
    ratings = np.where(is_candidate, world.draw(candidate, prompts, rng)[1], world.draw(world.serving, prompts, rng)[1])
    rows = [LiveRating(rating=float(r), is_of_candidate=bool(c)) for r, c in zip(ratings, is_candidate, strict=True)]
    return look_again_and_again(
        lambda number: decide(
            live_evidence(rows[:number], fraction=fraction), level=level, give_up_after=10 * MOST_RATINGS
        )
    )


def null_update(world: World, rng: np.random.Generator, number: int, size: float) -> Array:
    """Return an update that learnt nothing: of shuffled ratings, or noise, by turns."""
    direction = fit(world, rng, is_shuffled=True) if number % 2 else rng.normal(size=world.serving.shape)
    return tilt(world.serving, direction, size_of_spread(world, direction, size))


def without_gain(world: World, candidate: Array) -> Array:
    """Return the candidate, tilted by what people like until its true gain is 0: the edge of what is not better."""
    low, high = -10.0, 10.0
    for _ in range(50):
        middle = (low + high) / 2
        is_better = world.value(tilt(candidate, world.liked, middle)) > world.value(world.serving)
        low, high = (low, middle) if is_better else (middle, high)
    return tilt(candidate, world.liked, low)


def promoted_null(num_updates: int, *, liked_share: float, level: float, seed: int) -> dict[str, float]:
    """Return the share of null updates that is promoted, by held-out and by live ratings."""
    rng = np.random.default_rng(seed)
    counts = {"held-out": 0, "no gain, held-out": 0, "no gain, live": 0}
    gains: list[float] = []
    for number in range(num_updates):
        world = make_world(rng, liked_share=liked_share)
        direction = fit(world, rng, is_shuffled=False)
        wanted = spread(world, tilt(world.serving, direction, size_of_gain(world, direction, 0.1)))
        candidate = null_update(world, rng, number, wanted)
        gains.append(world.value(candidate) - world.value(world.serving))
        counts["held-out"] += judge_held_out(world, candidate, rng, level) > 0
        at_edge = without_gain(world, candidate)
        counts["no gain, held-out"] += judge_held_out(world, at_edge, rng, level) > 0
        counts["no gain, live"] += judge_live(world, at_edge, rng, level, 0.5) > 0
    return {name: count / num_updates for name, count in counts.items()} | {"gain": 100 * float(np.std(gains))}


def curve(
    num_updates: int, *, liked_share: float, gain: float, level: float, seed: int
) -> tuple[dict[str, list[int]], float]:
    """Return after how many ratings each update that is truly better is promoted, and the mean spread of log w."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[int]] = {"held-out": [], "live, half": [], "live, a fifth": []}
    spreads: list[float] = []
    for _ in range(num_updates):
        world = make_world(rng, liked_share=liked_share)
        direction = fit(world, rng, is_shuffled=False)
        candidate = tilt(world.serving, direction, size_of_gain(world, direction, gain))
        spreads.append(spread(world, candidate))
        found["held-out"].append(judge_held_out(world, candidate, rng, level))
        found["live, half"].append(judge_live(world, candidate, rng, level, 0.5))
        found["live, a fifth"].append(judge_live(world, candidate, rng, level, 0.2))
    return found, float(np.mean(spreads))


def share_by(promoted: Sequence[int], number: int) -> float:
    """Return the share that is promoted after at most so many ratings."""
    return float(np.mean([0 < each <= number for each in promoted]))


def sigmoid(values: Array) -> Array:
    """Return 1/(1 + e⁻ˣ)."""
    return 1 / (1 + np.exp(-values))


def softmax(logits: Array) -> Array:
    """Return probabilities over the last axis."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--level", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(f"{asked.updates} null updates, a look every {LOOK_EVERY} of {MOST_RATINGS} ratings, level {asked.level}:")
    print(
        "| liked at the start | promoted | of true gain 0: by held-out ratings | by live ratings, half | true gains |"
    )
    print("|---|---|---|---|---|")
    for liked in (0.2, 0.4, 0.6):
        null = promoted_null(asked.updates, liked_share=liked, level=asked.level, seed=asked.seed)
        shares = " | ".join(f"{null[name]:.1%}" for name in ("held-out", "no gain, held-out", "no gain, live"))
        print(f"| {liked:.0%} | {shares} | 0 ± {null['gain']:.1f} points |")
    for gain in (0.1,):
        print(
            f"\n{asked.updates} updates that are truly {100 * gain:.0f} points better, promoted by this many ratings:"
        )
        print(f"| liked at the start | judged by | {' | '.join(map(str, CHECKPOINTS))} |")
        print("|---" * (2 + len(CHECKPOINTS)) + "|")
        for liked in (0.2, 0.4, 0.6):
            found, far = curve(asked.updates, liked_share=liked, gain=gain, level=asked.level, seed=asked.seed + 1)
            for name, promoted in found.items():
                shares = " | ".join(f"{share_by(promoted, number):.0%}" for number in CHECKPOINTS)
                print(f"| {liked:.0%} (log w spreads {far:.2f}) | {name} | {shares} |")


if __name__ == "__main__":
    main()

"""What the losses for logged data minimise, by enumeration and root finding, in NumPy."""

import numpy as np

from tests.oracle import world

Array = np.ndarray


def log_ratio(table: Array, anchor: Array) -> Array:
    """Σ_t log(π/anchor) of each sequence; `anchor` holds conditionals [prefixes, tokens]."""
    pi = world.token_probabilities(world.conditionals(table))
    return np.log(pi / world.token_probabilities(anchor)).sum(1)


def squared_residual(table: Array, anchor: Array, weights: Array, advantages: Array, beta: float) -> complex:
    """Σ_y weight(y)·½·(β·log(π/anchor) − A)²/β: arXiv 2501.12599, equation 3, times τ/2."""
    return (weights * (beta * log_ratio(table, anchor) - advantages) ** 2 / (2 * beta)).sum()


def fitted_squared_residual(table: Array, anchor: Array, weights: Array, rewards: Array, beta: float) -> complex:
    """The same minimised over V in A = r − V: the variance of r − β·log(π/anchor) over 2β. Weights sum to 1."""
    targets = rewards - beta * log_ratio(table, anchor)
    return ((weights * targets**2).sum() - (weights * targets).sum() ** 2) / (2 * beta)


def topr(table: Array, mu: Array, advantages: Array) -> complex:
    """What TOPR (arXiv 2503.14286) maximises, its gradient for a bad y being μ·min(π/μ, 1)·A·∇log π.

    good: μ·A·log π; bad: A·π below μ, and its continuation A·μ·(1 + log(π/μ)) above, which has the slope A·μ·∇log π.
    """
    pi = world.token_probabilities(world.conditionals(table)).prod(1)
    mass = world.token_probabilities(mu).prod(1)
    bad = np.where(pi.real < mass, pi, mass * (1 + np.log(pi / mass)))
    return np.where(advantages >= 0, mass * advantages * np.log(pi), advantages * bad).sum()


def kto(table: Array, ref: Array, weights: Array, desirable: Array, settings: dict[str, float]) -> complex:
    """arXiv 2402.01306: Σ weight·λ·(1 − v/λ) with v = λ·σ(β(x − z₀)) for the desirable, λ·σ(β(z₀ − x)) for others."""
    x = log_ratio(table, ref)
    beta, z = settings["beta"], settings["z"]
    good = settings["desirable"] * (1 - 1 / (1 + np.exp(-beta * (x - z))))
    bad = settings["undesirable"] * (1 - 1 / (1 + np.exp(-beta * (z - x))))
    return (weights * np.where(desirable, good, bad)).sum()


def tilted(anchor: Array, rewards: Array, beta: float) -> Array:
    """anchor·exp(r/β)/Z over sequences, `anchor` being their probabilities."""
    mass = anchor * np.exp((rewards - rewards.max()) / beta)
    return mass / mass.sum()


def mixed_regulariser_optimum(mu: Array, advantages: Array, beta: float) -> Array:
    """The probabilities π that sum to 1 and solve β·log(π/μ) + m·π/μ = A for one m ≥ 0, by bisection twice.

    These are the stationary points of Σ μ·(β·log(π/μ) − A)² among distributions: the derivative with respect to π(y),
    (μ/π)·(β·log(π/μ) − A), is the same for all y. KL's optimum has the first term alone and χ²'s the second.
    """

    def mass(m: float) -> Array:
        low, high = np.full_like(mu, -60.0), np.full_like(mu, 60.0)
        for _ in range(200):
            middle = (low + high) / 2
            too_high = beta * middle + m * np.exp(middle) > advantages
            low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
        return mu * np.exp(low)

    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle).sum() > 1 else (low, middle)
    return mass(low)


SLOPES = {
    "rkl": lambda x: x + 1,
    "fkl": lambda x: -np.exp(-x),
    "jeffreys": lambda x: x + 1 - np.exp(-x),
    "chi-squared": lambda x: 2 * (np.exp(x) - 1),
}
"""f'(r) of a divergence at r = exp(x)."""


def pairwise(x: Array, rewards: Array, groups: Array, form: str, settings: dict) -> complex:
    """The mean loss of all pairs (i, j) of a group with R_i > R_j, two loops over what the papers write.

    dpo: arXiv 2305.18290, equation 7, smoothed; with f' of another divergence arXiv 2309.16240.
    ipo: arXiv 2310.12036, equation 17. rebel: arXiv 2404.16767, algorithm 1, times β/2.
    """
    beta, epsilon = settings["beta"], settings.get("label_smoothing", 0.0)
    slope = SLOPES[settings.get("divergence", "rkl")]
    losses = []
    for i in range(len(x)):
        for j in range(len(x)):
            if groups[i] != groups[j] or not rewards[i] > rewards[j]:
                continue
            h = beta * (slope(x[i]) - slope(x[j]))
            if form == "dpo":
                losses.append((1 - epsilon) * np.log(1 + np.exp(-h)) + epsilon * np.log(1 + np.exp(h)))
            elif form == "ipo":
                losses.append((x[i] - x[j] - 1 / (2 * beta)) ** 2)
            else:
                losses.append((h - (rewards[i] - rewards[j])) ** 2 / (2 * beta))
    return sum(losses) / max(1, len(losses))

"""A world small enough to enumerate: three tokens, responses of at most three, token 0 ends one.

A policy is a table of logits, one row for each prefix that hasn't ended. Everything that klimb estimates from samples
is a finite sum here. Gradients are taken by complex steps: imag(J(θ + i·h)) / h is ∂J/∂θ to the last digit, so nothing
but J itself has to be typed.
"""

from collections.abc import Callable
from itertools import product

import numpy as np

NUM_TOKENS = 3
MAX_LENGTH = 3
END = 0

PREFIXES = [p for n in range(MAX_LENGTH) for p in product(range(1, NUM_TOKENS), repeat=n)]
ROW = {prefix: row for row, prefix in enumerate(PREFIXES)}
SEQUENCES = [(*p, END) for p in PREFIXES] + list(product(range(1, NUM_TOKENS), repeat=MAX_LENGTH))
MASK = np.array([[t < len(y) for t in range(MAX_LENGTH)] for y in SEQUENCES])
LENGTHS = MASK.sum(1)

Array = np.ndarray
Contribution = Callable[[Array, Array], Array]


def logits(seed: int, *, scale: float = 1.0) -> Array:
    """A random policy table [prefixes, tokens]."""
    return scale * np.random.default_rng(seed).normal(size=(len(PREFIXES), NUM_TOKENS))


def rewards(seed: int) -> Array:
    """A random reward for each sequence."""
    return np.random.default_rng(seed).normal(size=len(SEQUENCES))


def prefix_rewards(seed: int) -> Array:
    """A random reward [sequences, time] that depends on the prefix y_1..y_t alone; 0 after the end."""
    rng = np.random.default_rng(seed)
    table: dict[tuple[int, ...], float] = {}
    out = np.zeros((len(SEQUENCES), MAX_LENGTH))
    for i, y in enumerate(SEQUENCES):
        for t in range(len(y)):
            out[i, t] = table.setdefault(y[: t + 1], rng.normal())
    return out


def conditionals(table: Array) -> Array:
    """Probabilities of the next token [prefixes, tokens]; works for complex tables."""
    weights = np.exp(table)
    return weights / weights.sum(1, keepdims=True)


def token_probabilities(cond: Array) -> Array:
    """Of each sequence's own tokens [sequences, time]; 1 after the end."""
    out = np.ones((len(SEQUENCES), MAX_LENGTH), dtype=cond.dtype)
    for i, y in enumerate(SEQUENCES):
        for t, token in enumerate(y):
            out[i, t] = cond[ROW[y[:t]], token]
    return out


def gradient(objective: Callable[[Array], complex], table: Array) -> Array:
    """∂objective/∂logits by complex steps."""
    step = 1e-30
    out = np.zeros_like(table)
    for index in np.ndindex(*table.shape):
        moved = table.astype(complex)
        moved[index] += 1j * step
        out[index] = objective(moved).imag / step
    return out


def sequence_objective(table: Array, ref: Array, reward: Array, beta: float, contribution: Contribution) -> complex:
    """Σ_y π(y)·R(y) − β·D(π, ref) over whole sequences. `ref` holds conditional masses [prefixes, tokens]."""
    pi = token_probabilities(conditionals(table)).prod(1)
    mass = token_probabilities(ref).prod(1)
    return (pi * reward).sum() - beta * contribution(pi, mass).sum()


def prefix_objective(table: Array, ref: Array, reward: Array, beta: float, contribution: Contribution) -> complex:
    """The same summed over every prefix y_1..y_t, each with its own reward [sequences, time]."""
    pi = np.cumprod(token_probabilities(conditionals(table)), 1)
    mass = np.cumprod(token_probabilities(ref), 1)
    total, seen = 0j, set()
    for i, y in enumerate(SEQUENCES):
        for t in range(len(y)):
            if y[: t + 1] not in seen:
                seen.add(y[: t + 1])
                total += pi[i, t] * reward[i, t] - beta * contribution(pi[i, t], mass[i, t])
    return total


def token_objective(
    table: Array, ref: Array, mu: Array, reward: Array, beta: float, contribution: Contribution
) -> complex:
    """Σ over prefixes of their probability under μ times (E_π[Q_μ] − β·D) of the next token alone."""
    pi = conditionals(table)
    mu_tokens = token_probabilities(mu)
    mu_sequences = mu_tokens.prod(1)
    total = 0j
    for prefix, row in ROW.items():
        after = [i for i, y in enumerate(SEQUENCES) if len(y) > len(prefix) and y[: len(prefix)] == prefix]
        reached = mu_sequences[after].sum()
        value = -beta * contribution(pi[row], ref[row]).sum()
        for token in range(NUM_TOKENS):
            with_token = [i for i in after if SEQUENCES[i][len(prefix)] == token]
            mass = mu_sequences[with_token]
            value += pi[row, token] * (mass * reward[with_token]).sum() / mass.sum()
        total += reached * value
    return total


def sequence_mean_surrogate(
    table: Array, ref: Array, mu: Array, reward: Array, beta: float, contribution: Contribution
) -> complex:
    """E_μ[s·R − β·v·f(s/v)] with s = (π/μ)^(1/length), v = (ref/μ)^(1/length): GSPO's weight, no expectation of π."""
    mu_tokens = token_probabilities(mu)
    s = (token_probabilities(conditionals(table)) / mu_tokens).prod(1) ** (1 / LENGTHS)
    v = (token_probabilities(ref) / mu_tokens).prod(1) ** (1 / LENGTHS)
    return (mu_tokens.prod(1) * (s * reward - beta * contribution(s, v))).sum()

"""The same world drawn with top-p: which tokens are kept, and the objectives of a policy renormalised on them."""

import numpy as np

from tests.oracle.world import NUM_TOKENS, ROW, SEQUENCES, Array, Contribution, conditionals


def top_p_sets(cond: Array, top_p: float) -> Array:
    """Which tokens are kept after each prefix [prefixes, tokens]: the likeliest ones that reach `top_p` together."""
    kept = np.zeros(cond.shape, dtype=bool)
    for row, probabilities in enumerate(cond):
        total = 0.0
        for token in np.argsort(-probabilities):
            kept[row, token] = True
            total += probabilities[token]
            if total >= top_p:
                break
    return kept


def renormalised(cond: Array, kept: Array) -> Array:
    """Conditionals on the kept tokens, 0 elsewhere; works for complex tables."""
    left = np.where(kept, cond, 0)
    return left / left.sum(1, keepdims=True)


def drawable(kept: Array) -> list[int]:
    """Numbers of the sequences all of whose tokens can be drawn."""
    return [i for i, y in enumerate(SEQUENCES) if all(kept[ROW[y[:t]], token] for t, token in enumerate(y))]


def probability(cond: Array, y: tuple[int, ...]) -> complex:
    """Of a whole sequence."""
    return np.prod([cond[ROW[y[:t]], token] for t, token in enumerate(y)])


def sequence_objective(
    table: Array, ref: Array, kept: Array, reward: Array, beta: float, contribution: Contribution
) -> complex:
    """Σ_y π_S(y)·R(y) − β·D(π_S, ref_S) over whole sequences, π_S and ref_S renormalised on the kept tokens."""
    pi, mass = renormalised(conditionals(table), kept), renormalised(ref, kept)
    total = 0j
    for i in drawable(kept):
        p, q = probability(pi, SEQUENCES[i]), probability(mass, SEQUENCES[i])
        total += p * reward[i] - beta * contribution(p, q)
    return total


def token_objective(
    table: Array, ref: Array, mu: Array, kept: Array, reward: Array, beta: float, contribution: Contribution
) -> complex:
    """Σ over prefixes of their probability under μ times (E_π_S[Q_μ] − β·D) of the next token alone."""
    pi, mass = renormalised(conditionals(table), kept), renormalised(ref, kept)
    drawn = {SEQUENCES[i]: (probability(mu, SEQUENCES[i]), reward[i]) for i in drawable(kept)}
    total = 0j
    for prefix, row in ROW.items():
        after = {y: found for y, found in drawn.items() if len(y) > len(prefix) and y[: len(prefix)] == prefix}
        if not after:
            continue
        value = 0j
        for token in range(NUM_TOKENS):
            if kept[row, token]:
                through = [found for y, found in after.items() if y[len(prefix)] == token]
                reached = sum(p for p, _ in through)
                value += pi[row, token] * sum(p * r for p, r in through) / reached
                value -= beta * contribution(pi[row, token], mass[row, token])
        total += sum(p for p, _ in after.values()) * value
    return total

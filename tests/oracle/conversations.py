"""A conversation small enough to enumerate: a turn of the policy, a random answer of an environment, another turn.

A turn has at most two tokens out of three, and token 0 ends one. The environment ends the conversation or puts in some
tokens; what it does depends on the turn. The second turn depends on all that came before. A policy is a table of
logits, one row for each point at which it draws; of the environment it knows nothing. Arrays over tokens are
[conversations, time] and hold the drawn tokens alone, those of both turns one after another.
"""

from itertools import product

import numpy as np

from tests.oracle.world import NUM_TOKENS, Array, Contribution, conditionals

MAX_TURN = 2
END = 0

STARTS = [start for n in range(MAX_TURN) for start in product(range(1, NUM_TOKENS), repeat=n)]
TURNS = [(*start, END) for start in STARTS] + list(product(range(1, NUM_TOKENS), repeat=MAX_TURN))
ANSWERS = [None, (), (2,), (1, 0)]
"""What the environment may put in; None: the conversation is over."""

CONVERSATIONS = [
    (first, answer, second)
    for first in TURNS
    for answer in ANSWERS
    for second in (TURNS if answer is not None else [()])
]

POINTS = STARTS + [(y, a, start) for y in TURNS for a in ANSWERS if a is not None for start in STARTS]
"""What the policy has seen when it draws: the start of its first turn, or the first turn, the answer and a start."""
ROW = {point: row for row, point in enumerate(POINTS)}

MAX_LENGTH = 2 * MAX_TURN
MASK = np.array([[t < len(y) + len(z) for t in range(MAX_LENGTH)] for y, _, z in CONVERSATIONS])
IS_SECOND = np.array([[t >= len(y) for t in range(MAX_LENGTH)] for y, _, _ in CONVERSATIONS]) & MASK
LENGTHS = MASK.sum(1)


def _per_token(value) -> Array:
    """Return value(first, answer, second, t) at each drawn token, 0 behind the last."""
    out = np.zeros(MASK.shape, dtype=int)
    for i, (y, a, z) in enumerate(CONVERSATIONS):
        for t in range(LENGTHS[i]):
            out[i, t] = value(y, a, z, t)
    return out


ROWS = _per_token(lambda y, a, z, t: ROW[y[:t] if t < len(y) else (y, a, z[: t - len(y)])])
TOKENS = _per_token(lambda y, a, z, t: (y + z)[t])
PLACES = _per_token(lambda y, a, z, t: t if t < len(y) else t + len(a))
"""Where each drawn token stands in the response, answers included."""

PREFIXES = ROWS * NUM_TOKENS + TOKENS
"""A number for all that was said up to and with this token."""
IS_FIRST = np.zeros(MASK.shape, dtype=bool)
"""True at one token of each prefix."""
IS_FIRST[MASK] = np.isin(np.arange(MASK.sum()), np.unique(PREFIXES[MASK], return_index=True)[1])


def logits(seed: int) -> Array:
    """A random policy table [points, tokens]."""
    return np.random.default_rng(seed).normal(size=(len(POINTS), NUM_TOKENS))


def environment(seed: int) -> Array:
    """Probability of the answer of each conversation [conversations], given its first turn."""
    table = np.random.default_rng(seed).dirichlet(np.ones(len(ANSWERS)), size=len(TURNS))
    return np.array([table[TURNS.index(y), ANSWERS.index(a)] for y, a, _ in CONVERSATIONS])


def rewards(seed: int) -> Array:
    """A random reward for each conversation."""
    return np.random.default_rng(seed).normal(size=len(CONVERSATIONS))


def first_turn_rewards(seed: int) -> Array:
    """A random reward for the first turn of each conversation, which depends on that turn and on its answer."""
    table = np.random.default_rng(seed).normal(size=(len(TURNS), len(ANSWERS)))
    return np.array([table[TURNS.index(y), ANSWERS.index(a)] for y, a, _ in CONVERSATIONS])


def prefix_rewards(seed: int) -> Array:
    """A random reward at each token that depends on what was said up to it; 0 behind the last."""
    return np.where(MASK, np.random.default_rng(seed).normal(size=len(POINTS) * NUM_TOKENS)[PREFIXES], 0.0)


def token_probabilities(cond: Array) -> Array:
    """Of each conversation's drawn tokens; 1 behind the last."""
    return np.where(MASK, cond[ROWS, TOKENS], 1.0)


def probabilities(cond: Array, env: Array) -> Array:
    """Of each conversation: of its drawn tokens, times that of the answer."""
    return token_probabilities(cond).prod(1) * env


def objective(table: Array, ref: Array, env: Array, reward: Array, beta: float, contribution: Contribution) -> complex:
    """E_π[R] − β·D(π, ref), the distributions being those of whole conversations, environment included."""
    pi = probabilities(conditionals(table), env)
    return (pi * reward).sum() - beta * contribution(pi, probabilities(ref, env)).sum()


def prefix_objective(
    table: Array, ref: Array, env: Array, reward: Array, beta: float, contribution: Contribution
) -> complex:
    """The same summed over all that may be said up to and with a drawn token, each with its own reward."""
    reached = np.where(IS_SECOND, env[:, None], 1.0)
    pi = np.cumprod(token_probabilities(conditionals(table)), 1) * reached
    mass = np.cumprod(token_probabilities(ref), 1) * reached
    terms = pi * reward - beta * contribution(pi, mass)
    return terms[IS_FIRST].sum()


def token_objective(
    table: Array, ref: Array, mu: Array, env: Array, reward: Array, beta: float, contribution: Contribution
) -> complex:
    """Σ over points of their probability under μ times (E_π[Q_μ] − β·D) of the next token alone."""
    pi, drawn = conditionals(table), probabilities(mu, env)
    mass, returns = np.zeros(pi.shape), np.zeros(pi.shape)
    for t in range(MAX_LENGTH):
        here = MASK[:, t]
        np.add.at(mass, (ROWS[here, t], TOKENS[here, t]), drawn[here])
        np.add.at(returns, (ROWS[here, t], TOKENS[here, t]), (drawn * reward)[here])
    values = (pi * returns / mass).sum(1) - beta * contribution(pi, ref).sum(1)
    return (mass.sum(1) * values).sum()


def sequence_mean_surrogate(
    table: Array, ref: Array, mu: Array, env: Array, reward: Array, beta: float, contribution: Contribution
) -> complex:
    """E_μ[s·R − β·v·f(s/v)], s and v the geometric means of π/μ and ref/μ over the drawn tokens."""
    mu_tokens = token_probabilities(mu)
    s = (token_probabilities(conditionals(table)) / mu_tokens).prod(1) ** (1 / LENGTHS)
    v = (token_probabilities(ref) / mu_tokens).prod(1) ** (1 / LENGTHS)
    return (probabilities(mu, env) * (s * reward - beta * contribution(s, v))).sum()


def values(cond: Array, env: Array, reward: Array) -> Array:
    """What is to be expected of the conversation's reward before each drawn token; 0 behind the last."""
    drawn = probabilities(cond, env)
    mass, returns = np.zeros(len(POINTS)), np.zeros(len(POINTS))
    for t in range(MAX_LENGTH):
        np.add.at(mass, ROWS[MASK[:, t], t], drawn[MASK[:, t]])
        np.add.at(returns, ROWS[MASK[:, t], t], (drawn * reward)[MASK[:, t]])
    return np.where(MASK, (returns / mass)[ROWS], 0.0)

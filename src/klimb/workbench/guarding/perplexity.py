"""Perplexity of a text under a policy: how surprised it is by ordinary writing."""

import math
from collections.abc import Sequence

import torch

from klimb.policies import Policy

WINDOW = 512
"""Positions that go through the model as one row, context and scored tokens together."""
CONTEXT = 128
"""Of these, at most so many are context: a text's tokens are predicted from 128 to 511 tokens before them."""
MOST_TOKENS = 8_192
"""Of a text, so many are read: enough for a stable number, and a measurement takes seconds."""


def text_ids(policy: Policy, text: str) -> tuple[int, ...]:
    """Token ids of plain text, at most 8192; what spells a control token is encoded as ordinary characters.

    Raises:
        ValueError: there are fewer than two.
    """
    ids = policy.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if len(ids) < 2:
        raise ValueError(f"the text for the perplexity has {len(ids)} tokens; give one of a few hundred words")
    return tuple(ids[:MOST_TOKENS])


@torch.no_grad()
def perplexity(policy: Policy, ids: Sequence[int], *, max_tokens: int) -> float:
    """exp(−mean of log π(token | up to 511 tokens before it)) over all tokens but the first; inf if it overflows.

    Args:
        policy: whose weights are used as they stand.
        ids: token ids of the text, at least two.
        max_tokens: tokens that go through the model at once; changes memory, not the result.
    """
    rows = _rows(len(ids), window=min(WINDOW, policy.max_positions or WINDOW))
    per_pass = max(1, max_tokens // WINDOW)
    total = sum(_log_prob(policy, ids, rows[first : first + per_pass]) for first in range(0, len(rows), per_pass))
    surprise = -total / (len(ids) - 1)
    return math.exp(surprise) if surprise < math.log(torch.finfo(torch.float64).max) else math.inf


def _rows(num_tokens: int, *, window: int) -> list[tuple[int, int, int]]:
    """(begin of the context, first scored, end) of each row: every token but the first is scored once."""
    context = window * CONTEXT // WINDOW
    step = window - context
    return [(max(0, first - context), first, min(first + step, num_tokens)) for first in range(1, num_tokens, step)]


def _log_prob(policy: Policy, ids: Sequence[int], rows: Sequence[tuple[int, int, int]]) -> float:
    width = max(end - first for _, first, end in rows)
    response_ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width).bool()
    for row, (_, first, end) in enumerate(rows):
        response_ids[row, : end - first] = torch.tensor(ids[first:end])
        mask[row, : end - first] = True
    prompts = [ids[begin:first] for begin, first, _ in rows]
    scored = policy.log_probs(prompts, torch.arange(len(rows)), response_ids, mask)
    return float(scored.log_pi.double().sum())

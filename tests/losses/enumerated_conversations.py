"""The oracle's conversations as samples, and as what a loss is called with."""

import numpy as np
import torch
from torch import Tensor

from klimb.experience import Batch, Sample, Turn, collate
from tests.oracle import conversations
from tests.oracle.world import conditionals

POLICY = conversations.logits(31)
BEHAVIOUR = conditionals(conversations.logits(32))
REFERENCE = conditionals(conversations.logits(33))
PROX = conditionals(conversations.logits(34))
ENVIRONMENT = conversations.environment(35)
REWARDS = conversations.rewards(36)
DRAWN = torch.from_numpy(conversations.MASK)


def make_sample(
    number: int,
    *,
    mu: np.ndarray = BEHAVIOUR,
    ref: np.ndarray = REFERENCE,
    reward: float = 0.0,
    first_reward: float | None = None,
    group: str = "g",
) -> Sample:
    """Return one conversation with its turns, as a sampler records it."""
    first, answer, second = conversations.CONVERSATIONS[number]
    turns = [Turn(role="assistant", text="", num_tokens=len(first), reward=first_reward)]
    if answer is not None:
        turns += [
            Turn(role="tool", text="", num_tokens=len(answer)),
            Turn(role="assistant", text="", num_tokens=len(second)),
        ]
    length = conversations.LENGTHS[number]
    return Sample(
        sample_id=f"conversation-{number}",
        group_id=group,
        prompt=(),
        prompt_ids=(1,),
        response="",
        response_ids=first + (answer or ()) + second,
        finish_reason="stop",
        reward=reward,
        log_mu=tuple(log_of(mu)[number, :length].tolist()),
        log_mu_provenance="sampler",
        log_ref=tuple(log_of(ref)[number, :length].tolist()),
        turns=tuple(turns),
    )


def batch_of(*, mu: np.ndarray = BEHAVIOUR, ref: np.ndarray = REFERENCE) -> Batch:
    """Return all conversations, each once."""
    return collate([make_sample(number, mu=mu, ref=ref) for number in range(len(conversations.CONVERSATIONS))])


def log_of(cond: np.ndarray) -> Tensor:
    """Log-probability of the drawn tokens [conversations, time]; 0 behind the last."""
    return torch.from_numpy(np.log(conversations.token_probabilities(cond)))


def log_probs(table: Tensor) -> Tensor:
    """Log-probability of the drawn tokens [conversations, time], differentiable; 0 behind the last."""
    at_tokens = table.log_softmax(-1)[torch.from_numpy(conversations.ROWS), torch.from_numpy(conversations.TOKENS)]
    return torch.where(DRAWN, at_tokens, 0.0)


def place(values: Tensor, width: int, *, fill: float = float("nan")) -> Tensor:
    """Lay values of drawn tokens out over the whole response, with `fill` where nothing was drawn."""
    places = torch.from_numpy(conversations.PLACES).masked_fill(~DRAWN, width)
    out = torch.full((len(values), width + 1), fill, dtype=values.dtype)
    return out.scatter(1, places, values)[:, :width].where(is_drawn(width), fill)


def is_drawn(width: int) -> Tensor:
    """Return where in the response a drawn token stands."""
    places = torch.from_numpy(conversations.PLACES)
    found = torch.zeros(len(places), width, dtype=torch.int64)
    return found.scatter_add(1, places, DRAWN.long()) > 0


def expectation(of_conversations: Tensor, cond: np.ndarray = BEHAVIOUR) -> Tensor:
    """Return the mean over conversations drawn with these conditionals in the environment."""
    return (torch.from_numpy(conversations.probabilities(cond, ENVIRONMENT)) * of_conversations).sum()

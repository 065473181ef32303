"""What has been drawn so far, one row a response."""

import torch
from jaxtyping import Int
from torch import Tensor

from klimb.samplers.completions import Completion
from klimb.samplers.distribution import Drawn


class Results:
    """Tokens and log-probabilities by slot; they stay on the device until all are there."""

    def __init__(self, num_slots: int, num_steps: int, device: torch.device) -> None:
        self.token_ids = torch.zeros(num_slots, num_steps, dtype=torch.long, device=device)
        self.log_mu = torch.zeros(num_slots, num_steps, device=device)
        self.log_model = torch.zeros(num_slots, num_steps, device=device)
        self.num_tokens = torch.full((num_slots,), num_steps, device=device)
        self.is_finished = torch.zeros(num_slots, dtype=torch.bool, device=device)

    def record(self, slots: Int[Tensor, " rows"], steps: Int[Tensor, " rows"], drawn: Drawn) -> None:
        """Token `steps` of each of the slots; what comes behind a slot's end token does not count."""
        self.token_ids[slots, steps] = drawn.token_ids
        self.log_mu[slots, steps] = drawn.log_mu
        self.log_model[slots, steps] = drawn.log_model

    def finish(self, slots: Int[Tensor, " rows"], num_tokens: int | Int[Tensor, " rows"]) -> None:
        """These slots ended their text with this many tokens."""
        self.num_tokens[slots] = num_tokens
        self.is_finished[slots] = True

    def completions(self, slots: slice = slice(None)) -> list[Completion]:
        """One for each of the slots; a slot that did not finish was cut off."""
        columns = (self.token_ids, self.log_mu, self.log_model, self.num_tokens, self.is_finished)
        return [
            Completion(
                response_ids=tuple(token_ids[:num_tokens]),
                log_mu=tuple(log_mu[:num_tokens]),
                log_model=tuple(log_model[:num_tokens]),
                finish_reason="stop" if is_finished else "length",
            )
            for token_ids, log_mu, log_model, num_tokens, is_finished in zip(
                *(column[slots].tolist() for column in columns), strict=True
            )
        ]

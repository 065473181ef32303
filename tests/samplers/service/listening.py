"""Somebody who asks an engine and keeps what it says."""

import threading
from collections.abc import Callable, Sequence

import torch

from klimb.experience.samples import SamplingSettings
from klimb.samplers import Completion, LocalSampler
from klimb.samplers.conversations import turn_quantiles
from klimb.samplers.distribution import TokenDetails
from klimb.samplers.service import DecodingEngine, DrawnToken, DrawRequest

LONGEST_WAIT = 60


class Listener:
    """Submits one request; `then` is called with every token."""

    def __init__(
        self, engine: DecodingEngine, request: DrawRequest, then: Callable[["Listener"], None] | None = None
    ) -> None:
        self.tokens: list[DrawnToken] = []
        self.ends: list[Completion | Exception] = []
        self.is_over = threading.Event()
        self.then = then
        self.has_ticket = threading.Event()
        self.ticket = engine.submit(request, on_token=self.hear, on_end=self.end)
        self.has_ticket.set()

    def hear(self, token: DrawnToken) -> None:
        assert self.has_ticket.wait(LONGEST_WAIT) and not self.ends
        self.tokens.append(token)
        if self.then is not None:
            self.then(self)

    def end(self, outcome: Completion | Exception) -> None:
        self.ends.append(outcome)
        self.is_over.set()

    @property
    def completion(self) -> Completion:
        """The answer, once it has ended; the tokens that were handed over are those of the answer."""
        assert self.is_over.wait(LONGEST_WAIT)
        (outcome,) = self.ends
        assert isinstance(outcome, Completion), outcome
        assert tuple(token.token_id for token in self.tokens) == outcome.response_ids
        assert tuple(token.log_mu for token in self.tokens) == outcome.log_mu
        assert tuple(token.log_model for token in self.tokens) == outcome.log_model
        supports = tuple(token.support for token in self.tokens if token.support is not None)
        assert supports == (outcome.support or ())
        return outcome

    @property
    def error(self) -> Exception:
        assert self.is_over.wait(LONGEST_WAIT)
        (outcome,) = self.ends
        assert isinstance(outcome, Exception)
        return outcome


def request(prompt: Sequence[int], seed: int = 0, **options) -> DrawRequest:
    fields = ("num_top_log_probs", "keep_support")
    own = {name: options.pop(name) for name in fields if name in options}
    settings = SamplingSettings(**{"max_new_tokens": 12, **options})
    return DrawRequest(prompt_ids=tuple(prompt), settings=settings, seed=seed, **own)


@torch.no_grad()
def scores(policy, prompt: Sequence[int], response: Sequence[int]) -> list[float]:
    """What the policy says of the response's tokens when it scores them."""
    ids = torch.tensor([response])
    return policy.log_probs([prompt], torch.tensor([0]), ids, torch.ones_like(ids, dtype=torch.bool)).log_pi[0].tolist()


class Alone:
    """What LocalSampler draws at the random numbers of requests, one after the other."""

    def __init__(self, policy) -> None:
        self.sampler = LocalSampler(policy)

    def __call__(self, asked: DrawRequest) -> Completion:
        """Return the answer to one of them."""
        quantiles = turn_quantiles(asked.seed, 0, asked.settings.max_new_tokens)[:, None]
        details = TokenDetails(support=asked.keep_support, num_top=asked.num_top_log_probs)
        ((completion,),) = self.sampler.sample_at(
            [asked.prompt_ids], settings=asked.settings, quantiles=quantiles, details=details
        )
        return completion

"""What a sampler is and what it gives back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from klimb.experience.samples import FinishReason, SamplingSettings


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One drawn response. Position t of each field belongs to token t.

    Attributes:
        response_ids: the drawn tokens, the end token included when `finish_reason` is `stop`.
        log_mu: log-probability in nats of each token under the distribution it was really drawn from.
        log_model: log-probability in nats under the model itself: temperature 1, nothing cut off. It equals `log_mu`
            when the settings are plain, and is the one to compare with a trainer's log-probabilities.
        finish_reason: `stop` when the model ended its text, `length` when `max_new_tokens` cut it.
    """

    response_ids: tuple[int, ...]
    log_mu: tuple[float, ...]
    log_model: tuple[float, ...]
    finish_reason: FinishReason

    def __post_init__(self) -> None:
        lengths = (len(self.response_ids), len(self.log_mu), len(self.log_model))
        if len(set(lengths)) != 1:
            raise ValueError(f"response_ids, log_mu and log_model must be equally long, got lengths {lengths}")


@runtime_checkable
class Sampler(Protocol):
    """Anything that draws responses to prompts and records the distribution they were drawn from."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        """One list per prompt, in the order of the prompts, with `num_samples` completions each."""
        ...


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that hands over the completions of a prompt as soon as the last of them has ended."""

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Each prompt's number with its completions, in the order in which prompts end; the same as `sample` gives."""
        ...

"""A batched sampler on the policy's own model: one prefill per prompt, and only unfinished rows are decoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache

from klimb.experience.samples import SamplingSettings
from klimb.samplers.attention import attention_by, decoding_attention
from klimb.samplers.completions import Completion
from klimb.samplers.decoding_mode import decoding_mode
from klimb.samplers.distribution import draw
from klimb.samplers.kv_cache import copied, growing_cache, select_rows

MAX_PREFILL_TOKENS = 16384
"""Prompt tokens, padding included, that go through the model at once; bounds the memory of long prompts."""


@runtime_checkable
class CausalModel(Protocol):
    """What the sampler needs of a policy (`klimb.policies.Policy` has it)."""

    model: nn.Module
    device: torch.device
    compute_dtype: torch.dtype
    end_ids: tuple[int, ...]


@dataclass
class _Batch:
    """The rows being decoded: their cache, which cached positions count, and what the model says comes next.

    `slots` names, for each row, the place of its response among the results; rows leave, slots stay.
    """

    cache: Cache
    attention_mask: Tensor
    next_positions: Tensor
    logits: Tensor
    slots: Tensor

    def select(self, rows: Tensor) -> None:
        select_rows(self.cache, rows)
        self.attention_mask = self.attention_mask[rows]
        self.next_positions = self.next_positions[rows]
        self.logits = self.logits[rows]
        self.slots = self.slots[rows]

    def copy(self) -> "_Batch":
        return _Batch(copied(self.cache), self.attention_mask, self.next_positions, self.logits, self.slots)


class _Results:
    """Tokens and log-probabilities by slot; the last counted token of a slot is where it finished."""

    def __init__(self, num_slots: int, num_steps: int, device: torch.device) -> None:
        self.token_ids = torch.zeros(num_slots, num_steps, dtype=torch.long, device=device)
        self.log_mu = torch.zeros(num_slots, num_steps, device=device)
        self.log_model = torch.zeros(num_slots, num_steps, device=device)
        self.num_tokens = torch.full((num_slots,), num_steps, device=device)
        self.is_finished = torch.zeros(num_slots, dtype=torch.bool, device=device)

    def completions(self) -> list[Completion]:
        columns = (self.token_ids, self.log_mu, self.log_model, self.num_tokens, self.is_finished)
        return [
            Completion(
                response_ids=tuple(token_ids[:num_tokens]),
                log_mu=tuple(log_mu[:num_tokens]),
                log_model=tuple(log_model[:num_tokens]),
                finish_reason="stop" if is_finished else "length",
            )
            for token_ids, log_mu, log_model, num_tokens, is_finished in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]


class LocalSampler:
    """Draws from a policy in this process (a `Sampler`).

    Each prompt goes through the model once for all its samples; its keys and values are then copied to one row per
    sample. Prompts of different lengths share a batch by padding on the left. A row leaves the batch some time after
    its end token, so long answers do not pay for short ones.

    The random number of (prompt, sample, token) depends on the generator and these three alone. So the same generator
    state and prompts give the same tokens, and `max_batch` or the other rows' lengths change no draw: they can change
    a token only where their rounding moves a probability across its random number.

    Attributes:
        policy: whose model is sampled; its weights are read at every call, so it may be trained in between.
        max_batch: rows decoded at once; more are decoded in further waves.
        compact_fraction: finished rows are dropped when they make up at least this share of the batch.
        max_prefill_tokens: prompt tokens, padding included, that go through the model at once.
    """

    def __init__(
        self,
        policy: CausalModel,
        *,
        max_batch: int = 128,
        compact_fraction: float = 0.25,
        max_prefill_tokens: int = MAX_PREFILL_TOKENS,
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch must be >= 1, got {max_batch}")
        if not 0 < compact_fraction <= 1:
            raise ValueError(f"compact_fraction must be in (0, 1], got {compact_fraction}; 1 never drops a row early")
        if max_prefill_tokens < 1:
            raise ValueError(f"max_prefill_tokens must be >= 1, got {max_prefill_tokens}")
        self.policy = policy
        self.max_batch = max_batch
        self.compact_fraction = compact_fraction
        self.max_prefill_tokens = max_prefill_tokens
        self._attention: str | None = None

    @property
    def _model(self) -> PreTrainedModel:
        """The transformers model; with an adapter, the one that has it in its layers."""
        model = self.policy.model
        return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)

    @property
    def _config(self) -> PreTrainedConfig:
        return self._model.config

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        """One list per prompt, in the order of the prompts, with `num_samples` completions each.

        Raises:
            ValueError: `num_samples` < 1, or a prompt that is empty, holds ids outside the vocabulary, or leaves no
                room for `max_new_tokens` in the model's context.
            FloatingPointError: the model gave logits that are no distribution.
        """
        self._check(prompts, num_samples, settings)
        shape = (settings.max_new_tokens, len(prompts) * num_samples)
        quantiles = torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator)
        completions: dict[int, Completion] = {}
        policy = self.policy
        with (
            decoding_mode(self._model, device=policy.device, compute_dtype=policy.compute_dtype),
            attention_by(self._model, self._decoding_attention()),
        ):
            for batch in self._waves(prompts, num_samples):
                rows = batch.slots
                drawn = quantiles[:, rows.to(generator.device)].to(policy.device)
                completions.update(zip(rows.tolist(), self._decode(batch, settings, drawn), strict=True))
        return [[completions[i * num_samples + j] for j in range(num_samples)] for i in range(len(prompts))]

    def _decoding_attention(self) -> str:
        """Found at the first call, then kept."""
        if self._attention is None:
            self._attention = decoding_attention(self._model, self.policy.device)
        return self._attention

    def _waves(self, prompts: Sequence[Sequence[int]], num_samples: int) -> Iterator[_Batch]:
        """Prefilled batches of at most `max_batch` rows; `slots` are the rows' numbers among all samples.

        Prompts of similar length go together, for less padding. A group larger than a batch is split, and its prompt
        is still prefilled once.
        """
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for block in _chunks(by_length, max(1, self.max_batch // num_samples)):
            prefilled = self._prefill([prompts[i] for i in block])
            rows = [(place, i * num_samples + j) for place, i in enumerate(block) for j in range(num_samples)]
            for chunk in _chunks(rows, self.max_batch):
                places, slots = torch.tensor(chunk, device=self.policy.device).unbind(dim=1)
                # The last chunk takes the prefilled tensors over, so that they are not held beside its own.
                batch = prefilled if chunk[-1] == rows[-1] else prefilled.copy()
                batch.select(places)
                batch.slots = slots
                yield batch

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> _Batch:
        """The prompts' keys and values, one row each, padded on the left, and the logits of their first tokens."""
        device = self.policy.device
        width = max(len(prompt) for prompt in prompts)
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        token_ids = torch.tensor(padded, device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        positions = torch.arange(width, device=device) - (width - lengths)[:, None]
        attention_mask = positions >= 0
        cache = growing_cache(self._config, self.policy.compute_dtype)
        logits = token_ids.new_empty(0)
        for columns in _chunks(range(width), max(1, self.max_prefill_tokens // len(prompts))):
            part = slice(columns[0], columns[-1] + 1)
            logits = self._forward(
                token_ids[:, part], positions[:, part].clamp(min=0), attention_mask[:, : part.stop], cache
            )
        return _Batch(cache, attention_mask, lengths, logits, torch.arange(len(prompts), device=device))

    def _decode(self, batch: _Batch, settings: SamplingSettings, quantiles: Tensor) -> list[Completion]:
        """The responses of the batch's rows; `quantiles` is `[max_new_tokens, rows]`."""
        num_steps, num_rows = quantiles.shape
        device = self.policy.device
        results = _Results(num_rows, num_steps, device)
        end_ids = torch.tensor(self.policy.end_ids, dtype=torch.long, device=device)
        batch.slots = torch.arange(num_rows, device=device)
        for step in range(num_steps):
            slots = batch.slots
            drawn = draw(batch.logits, settings, quantiles=quantiles[step, slots])
            results.token_ids[slots, step] = drawn.token_ids
            results.log_mu[slots, step] = drawn.log_mu
            results.log_model[slots, step] = drawn.log_model
            was_finished = results.is_finished[slots]
            ends_now = torch.isin(drawn.token_ids, end_ids) & ~was_finished
            results.num_tokens[slots[ends_now]] = step + 1
            results.is_finished[slots] = was_finished | ends_now
            if step + 1 == num_steps or not self._advance(batch, drawn.token_ids, results.is_finished[slots]):
                break
        return results.completions()

    def _advance(self, batch: _Batch, token_ids: Tensor, is_finished: Tensor) -> bool:
        """Feeds the drawn tokens to the model, after dropping finished rows; False when none is left."""
        num_finished = int(is_finished.sum())
        if num_finished == len(is_finished):
            return False
        if num_finished >= self.compact_fraction * len(is_finished):
            rows = (~is_finished).nonzero()[:, 0]
            batch.select(rows)
            token_ids = token_ids[rows]
        batch.attention_mask = torch.nn.functional.pad(batch.attention_mask, (0, 1), value=True)
        batch.logits = self._forward(
            token_ids[:, None], batch.next_positions[:, None], batch.attention_mask, batch.cache
        )
        batch.next_positions = batch.next_positions + 1
        return True

    def _forward(self, token_ids: Tensor, positions: Tensor, attention_mask: Tensor, cache: Cache) -> Tensor:
        """Logits `[batch, vocab]` after the last token; extends the cache."""
        output = self._model(
            input_ids=token_ids,
            position_ids=positions,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _check(self, prompts: Sequence[Sequence[int]], num_samples: int, settings: SamplingSettings) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {num_samples}")
        config = self._config.get_text_config()
        context = getattr(config, "max_position_embeddings", None)
        for i, prompt in enumerate(prompts):
            if not len(prompt):
                raise ValueError(f"prompt {i} is empty; the first token needs at least one token before it")
            if min(prompt) < 0 or max(prompt) >= config.vocab_size:
                raise ValueError(
                    f"prompt {i} holds token ids from {min(prompt)} to {max(prompt)}, the model's vocabulary is "
                    f"0 to {config.vocab_size - 1}; was it made with another tokenizer?"
                )
            if context is not None and len(prompt) + settings.max_new_tokens > context:
                raise ValueError(
                    f"prompt {i} has {len(prompt)} tokens and max_new_tokens is {settings.max_new_tokens}; together "
                    f"they must fit the model's context of {context}; shorten one of them"
                )


def _chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

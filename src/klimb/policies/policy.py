"""The policy: a language model, its tokenizer, and the log-probabilities of given tokens.

What may be scored: prompts, responses and masks that fit each other and the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from klimb.experience import Message, give_usual_mode
from klimb.experience.batches import num_read
from klimb.experience.support import Support
from klimb.policies.adapters import merged_state
from klimb.policies.head import token_log_probs
from klimb.policies.llama.packed import packed_hidden
from klimb.policies.llama.rows import pack_rows
from klimb.policies.out_of_memory import PassLimit
from klimb.policies.padded import decoder_of, predicting_hidden
from klimb.policies.positions import find_max_positions
from klimb.policies.saving import save_plain_model
from klimb.policies.settings import ActivationCheckpointing
from klimb.policies.tokenizer import decode_ids, fingerprint_of, render_chat, vocabulary_of


def check_scoring_inputs(
    prompts: Sequence[Sequence[int]],
    prompt_index: Tensor,
    response_ids: Tensor,
    mask: Tensor,
    *,
    num_vocab: int,
    max_positions: int | None,
) -> None:
    """Return if every row can be scored.

    Args:
        prompts: token ids of each prompt.
        prompt_index: row -> prompt.
        response_ids: `[batch, time]`.
        mask: `[batch, time]`, True where a token counts.
        num_vocab: token ids must be below it.
        max_positions: prompt and response together must not be longer; None if the model has no such bound.

    Raises:
        ValueError: shapes that disagree, an empty prompt, a token outside the vocabulary, a row that is too long.
    """
    _check_shapes(prompt_index, response_ids, mask)
    if not len(response_ids):
        raise ValueError("there are no rows to score")
    first, last = int(prompt_index.min()), int(prompt_index.max())
    if first < 0 or last >= len(prompts):
        raise ValueError(f"prompt_index goes from {first} to {last}, but there are {len(prompts)} prompts")
    used = set(prompt_index.tolist())
    for index in sorted(used):
        _check_prompt(index, prompts[index], num_vocab)
    _check_vocabulary(response_ids, mask, num_vocab)
    lengths = torch.tensor([len(prompt) for prompt in prompts])[prompt_index.cpu()] + num_read(mask).cpu()
    if max_positions is not None and int(lengths.max()) > max_positions:
        row = int(lengths.argmax())
        raise ValueError(
            f"row {row} has {int(lengths[row])} tokens (prompt and response), but the model has only {max_positions} "
            "positions; shorten the prompt or the response"
        )


def find_foreign(ids: Sequence[int], num_vocab: int) -> int | None:
    """Return the place of the first id that is none of the model's; None if each is one.

    The model's vocabulary counts, not the tokenizer's: what the model can draw is an action with a probability.
    """
    return next((place for place, token_id in enumerate(ids) if not 0 <= token_id < num_vocab), None)


def _check_shapes(prompt_index: Tensor, response_ids: Tensor, mask: Tensor) -> None:
    if response_ids.ndim != 2 or mask.shape != response_ids.shape or mask.dtype != torch.bool:
        raise ValueError(
            "response_ids and mask must both be [batch, time] and mask bool, got response_ids "
            f"{list(response_ids.shape)} and mask {list(mask.shape)} of {mask.dtype}"
        )
    if prompt_index.shape != response_ids.shape[:1]:
        raise ValueError(
            f"prompt_index must have one entry for each of {len(response_ids)} rows, got {list(prompt_index.shape)}"
        )


def _check_prompt(index: int, prompt: Sequence[int], num_vocab: int) -> None:
    if not len(prompt):
        raise ValueError(f"prompt {index} is empty; the first response token needs at least one token before it")
    if find_foreign(prompt, num_vocab) is not None:
        raise ValueError(
            f"prompt {index} has token ids from {min(prompt)} to {max(prompt)}, but the model's vocabulary is 0 to "
            f"{num_vocab - 1}; was it encoded with another tokenizer?"
        )


def _check_vocabulary(response_ids: Tensor, mask: Tensor, num_vocab: int) -> None:
    is_read = torch.arange(mask.shape[1], device=mask.device) < num_read(mask)[:, None]
    is_wrong = is_read & ((response_ids < 0) | (response_ids >= num_vocab)).to(mask.device)
    if bool(is_wrong.any()):
        row, time = is_wrong.nonzero()[0].tolist()
        raise ValueError(
            f"response {row} has token id {int(response_ids[row, time])} at position {time}, but the model's "
            f"vocabulary is 0 to {num_vocab - 1}; was it encoded with another tokenizer?"
        )


@dataclass(frozen=True)
class ScoredTokens:
    """Scores of response tokens; 0 where the mask is False.

    Attributes:
        log_pi: log-probability in nats *of* the token at each position, float32 or wider.
        entropy: entropy in nats of the distribution that the token was predicted from; None unless asked for.
    """

    log_pi: Float[Tensor, "batch time"]
    entropy: Float[Tensor, "batch time"] | None


@dataclass
class Policy:
    """A causal language model with float32 master weights, and how it is run. `load_policy` makes one.

    Attributes:
        model: the transformers model, inside a peft model if there is an adapter; always in evaluation mode.
        tokenizer: with its chat template.
        name: as it was asked for.
        device: of the weights.
        compute_dtype: of matrix products: float32, or bfloat16 by autocast around the float32 weights.
        end_ids: tokens that end a response, the one first that the chat template writes behind an answer.
        temperature: τ of π = softmax(logits / τ): of the policy that is scored, trained, evaluated and saved. What is
            drawn at another temperature is drawn from another policy.
        packs_rows: prompts and responses go through klimb's own forward pass of the decoder, once and without padding;
            otherwise through transformers'.
        shares_prompts: in transformers' forward pass, a prompt goes through the model once for all its responses.
        activation_checkpointing: with `packs_rows`, whether layers are computed again in the backward pass to save
            memory; values and gradients are the same.
        has_given_adapter: the adapter was trained before, so that the policy begins as more than its base model.
        logit_scale: factor on the logits that some architectures have.
        notes: what was chosen at loading and why, for `describe`.
        pass_limit: what was learnt of how much fits into memory at once.
    """

    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    name: str
    device: torch.device
    compute_dtype: torch.dtype
    end_ids: tuple[int, ...]
    temperature: float = 1.0
    packs_rows: bool = False
    shares_prompts: bool = True
    activation_checkpointing: ActivationCheckpointing = "auto"
    logit_scale: float = 1.0
    has_given_adapter: bool = False
    notes: tuple[str, ...] = ()
    pass_limit: PassLimit = field(default_factory=PassLimit, repr=False)

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model; with an adapter, the one that has it in its layers."""
        return cast(PreTrainedModel, self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model)

    @property
    def has_adapter(self) -> bool:
        """True where an adapter is trained, and not the model's own weights."""
        return isinstance(self.model, PeftModel)

    @property
    def num_vocab(self) -> int:
        """Number of token ids that the model knows, and may draw: the space of actions. A tokenizer may have fewer."""
        return cast(nn.Embedding, self.causal_lm.get_input_embeddings()).weight.shape[0]

    @property
    def max_positions(self) -> int | None:
        """Positions at which a row's log-probabilities are its own; None if the model has no bound."""
        return find_max_positions(self.causal_lm.config.get_text_config())

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for the tokenizer: vocabulary, added and special tokens, chat template."""
        return fingerprint_of(self.tokenizer)

    def describe(self) -> str:
        """One line: what was loaded, and what was chosen for this machine and why."""
        total = sum(parameter.numel() for parameter in self.model.parameters())
        trained = sum(parameter.numel() for parameter in self.trainable().values())
        share = "" if trained == total else f" ({trained / 1e6:.2f} M trained)"
        kind = type(self.causal_lm).__name__
        return "; ".join([f"{self.name}: {kind}, {total / 1e6:.1f} M parameters{share}", *self.notes])

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Token ids of a prompt: the chat template up to the beginning of the assistant's answer.

        Text in a message or in the schema of a tool never becomes a control token.
        """
        return render_chat(self.tokenizer, messages, tools)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the tokens, without special tokens; ids without a token in the tokenizer have none."""
        return decode_ids(self.tokenizer, ids)

    def decode_turn(self, ids: Sequence[int]) -> str:
        """Text of a drawn turn: with the special tokens that mark its calls, without an end token at its end."""
        kept = ids[:-1] if ids and ids[-1] in self.end_ids else ids
        return decode_ids(self.tokenizer, kept, skip_special_tokens=False)

    def has_token(self, token_id: int) -> bool:
        """Tell whether the tokenizer has a token for an id; models are padded with rows for which it has none."""
        return token_id in vocabulary_of(self.tokenizer).known_ids

    def log_probs(
        self,
        prompts: Sequence[Sequence[int]],
        prompt_index: Int[Tensor, " batch"],
        response_ids: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
        *,
        temperature: float | None = None,
        with_entropy: bool = False,
        support: Support | None = None,
    ) -> ScoredTokens:
        """Log-probabilities of response tokens given their prompts; differentiable in the weights.

            log_pi[i, t] = log softmax(logits(prompt_i, response_i[:t]) / temperature)[response_i[t]]

        At a place with a recorded support S, softmax is over S alone: log_pi is then log π - log Σ_S π. The entropy is
        always that of the whole distribution.

        A prompt shared by several rows goes through the model once, with the values and gradients of separate rows.
        The logits are never all in memory. The caller chooses how many rows are alive at once.

        Args:
            prompts: token ids of each prompt.
            prompt_index: row -> prompt.
            response_ids: padded on the right with anything.
            mask: True where a token counts; tokens before a counted one are read even where it is False.
            temperature: > 0; that of the distribution whose log-probability is wanted, the policy's own if None.
            with_entropy: also return entropies.
            support: the tokens that could be drawn at each place of `response_ids`; None for all everywhere.

        Raises:
            ValueError: shapes disagree, a prompt is empty, a token is not in its support or outside the vocabulary, a
                row is longer than the model's positions, or the model is in training mode.
        """
        ids, counted = self._read(prompts, prompt_index, response_ids, mask)
        with self._autocast():
            log_pi, entropy = self._score(
                prompts,
                prompt_index.to(self.device),
                ids,
                counted,
                self.temperature if temperature is None else temperature,
                with_entropy,
                _support_of_counted(support, counted, mask),
            )
        width = mask.shape[1]
        return ScoredTokens(
            _spread(log_pi, counted, width), None if entropy is None else _spread(entropy, counted, width)
        )

    def predicting_states(
        self,
        prompts: Sequence[Sequence[int]],
        prompt_index: Int[Tensor, " batch"],
        response_ids: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "tokens hidden"]:
        """Return the final hidden state that each counted token is predicted from, row after row, in float32.

        Arguments and errors are those of `log_probs`.
        """
        ids, counted = self._read(prompts, prompt_index, response_ids, mask)
        with self._autocast():
            return self._counted_hidden(prompts, prompt_index.to(self.device), ids, counted).float()

    def _counted_hidden(
        self, prompts: Sequence[Sequence[int]], prompt_index: Tensor, ids: Tensor, counted: Tensor
    ) -> Tensor:
        decoder = decoder_of(self.causal_lm)
        if not self.packs_rows:
            return predicting_hidden(decoder, prompts, prompt_index, ids, share_prompts=self.shares_prompts)[counted]
        weights = cast(nn.Embedding, self.causal_lm.get_input_embeddings()).weight.dtype
        return packed_hidden(
            decoder,
            pack_rows(prompts, prompt_index, ids, counted),
            dtype=torch.bfloat16 if self.compute_dtype == torch.bfloat16 else weights,
            checkpointing=self.activation_checkpointing,
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype == torch.bfloat16)

    def _read(
        self, prompts: Sequence[Sequence[int]], prompt_index: Tensor, response_ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token ids up to the last counted column with 0 behind each row's last counted token, and which count."""
        check_scoring_inputs(
            prompts, prompt_index, response_ids, mask, num_vocab=self.num_vocab, max_positions=self.max_positions
        )
        if self.model.training:
            raise ValueError(
                "the model is in training mode, where dropout changes the policy; call policy.model.eval()"
            )
        lengths = num_read(mask)
        # At least one column, so that a batch in which nothing counts still has a graph, with zero gradients.
        num_columns = max(1, int(lengths.max()))
        missing = (0, max(0, num_columns - mask.shape[1]))
        mask, response_ids = nn.functional.pad(mask, missing), nn.functional.pad(response_ids, missing)
        counted = mask[:, :num_columns].to(self.device)
        is_read = torch.arange(num_columns, device=mask.device) < lengths[:, None]
        return torch.where(is_read, response_ids[:, :num_columns].to(mask.device), 0).to(self.device), counted

    def _score(
        self,
        prompts: Sequence[Sequence[int]],
        prompt_index: Tensor,
        ids: Tensor,
        counted: Tensor,
        temperature: float,
        with_entropy: bool,
        support: Support | None,
    ) -> tuple[Tensor, Tensor | None]:
        """log_pi and entropy of the counted tokens, as one row."""
        model = self.causal_lm
        hidden = self._counted_hidden(prompts, prompt_index, ids, counted)
        output = cast(nn.Linear, model.get_output_embeddings())
        scored = token_log_probs(
            hidden * self.logit_scale if self.logit_scale != 1 else hidden,
            output.weight,
            ids[counted],
            bias=output.bias,
            temperature=temperature,
            softcap=getattr(model.config.get_text_config(), "final_logit_softcapping", None),
            with_entropy=with_entropy,
            support=support,
        )
        return scored.log_pi, scored.entropy

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, of those that are trained: the adapter alone if there is one."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def save(self, folder: str | Path, *, adapter_only: bool = False) -> None:
        """Write a Hugging Face folder that plain transformers loads, that scores the same and draws from the policy.

        Its `generation_config` samples at the policy's temperature with nothing cut off.
        A LoRA adapter is merged into the written weights, not into the policy's own.

        Args:
            folder: made if missing.
            adapter_only: write the adapter in peft's format instead, to be put on the base model again.

        Raises:
            ValueError: `adapter_only` without an adapter.
        """
        if not adapter_only:
            state = merged_state(self.causal_lm)
            save_plain_model(self.causal_lm, state, self.tokenizer, Path(folder), temperature=self.temperature)
            return
        if not isinstance(self.model, PeftModel):
            raise ValueError(f"{self.name} has no adapter to save; save the whole model with adapter_only=False")
        self.model.save_pretrained(str(folder), safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        give_usual_mode(Path(folder).glob("*.safetensors"))


def _support_of_counted(support: Support | None, counted: Tensor, mask: Tensor) -> Support | None:
    """Return the sets of the counted tokens, as one row."""
    if support is None:
        return None
    if support.sizes.shape != mask.shape:
        raise ValueError(
            f"support must have one set for each place of mask {list(mask.shape)}, got sizes "
            f"{list(support.sizes.shape)}"
        )
    rows, columns = counted.nonzero(as_tuple=True)
    return support.to(counted.device).take(rows * mask.shape[1] + columns)


def _spread(values: Tensor, counted: Tensor, width: int) -> Tensor:
    """Return the values at the counted places of `[batch, width]`, 0 elsewhere."""
    zeros = torch.zeros(counted.shape, dtype=values.dtype, device=values.device)
    return nn.functional.pad(zeros.masked_scatter(counted, values), (0, width - counted.shape[1]))

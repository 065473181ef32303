"""A batched sampler on the policy's own model: one prefill per prompt, and only unfinished rows are decoded.

Whether klimb's own decoder computes what a model computes: by structure, then by numbers.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from klimb.experience.samples import SamplingSettings
from klimb.policies.out_of_memory import DoesNotFitError, PassLimit, free_memory, is_out_of_memory
from klimb.samplers.attention import decoding_attention
from klimb.samplers.conversation_lanes import ConversationLanes
from klimb.samplers.conversations import Conversations, Rounds, TurnRun, draw_seeds
from klimb.samplers.decoder import LlamaDecoder
from klimb.samplers.decoding_mode import decoding_mode, plain_arithmetic
from klimb.samplers.distribution import TokenDetails
from klimb.samplers.drawing import Drawing, make_drawing
from klimb.samplers.lanes import LaneLimits, LaneRun
from klimb.samplers.prompts import prompt_limits
from klimb.samplers.sampler import Answer, Completion, Dialogue
from klimb.samplers.transformers_decoding import TransformersDecoding
from klimb.samplers.weights import LlamaWeights, UnknownArchitectureError, llama_weights

logger = logging.getLogger(__name__)


LENGTHS = (12, 9)


NUM_STEPS = 3
"""Two sequences, of whose tokens the last are fed one at a time."""


TOLERANCE = 1e-3
"""Largest difference in logits, relative to the largest logit, that rounding in float32 may leave."""


@torch.no_grad()
def reason_against_own_decoder(model: PreTrainedModel, *, device: torch.device, compute_dtype: torch.dtype) -> str:
    """Why this model must be decoded by transformers; empty if klimb's own decoder gives its logits.

    Logits of a few tokens are compared in float32, after a pass over prompts of two lengths and after each of some
    single tokens, since names of modules cannot tell everything an architecture does.
    """
    if device.type != "cpu":
        return f"klimb's own decoder is for CPUs, the model is on {device}"
    attention = model.config._attn_implementation
    if compute_dtype != torch.float32 and attention != "eager":
        # Its log-probabilities would differ from the trainer's by more than the order of sums.
        return f"in {compute_dtype} klimb's own decoder rounds as eager attention does, the model has {attention!r}"
    try:
        weights = llama_weights(model)
        gap = _largest_gap(model, weights)
    except UnknownArchitectureError as error:
        return str(error)
    except RuntimeError as error:
        return f"klimb's own decoder fails on its shapes ({error})"
    return "" if gap <= TOLERANCE else f"klimb's own decoder differs from its logits by {gap:.2g} of the largest"


def _largest_gap(model: PreTrainedModel, weights: LlamaWeights) -> float:
    """Relative to the largest logit; nan if a logit is none."""
    num_vocab = len(weights.embedding)
    sequences = [[(7 + 31 * i + row) % num_vocab for i in range(length)] for row, length in enumerate(LENGTHS)]
    with decoding_mode(model, device=torch.device("cpu"), compute_dtype=torch.float32):
        expected = torch.stack([_expected(model, sequence) for sequence in sequences], dim=1)
        found = _found(weights, sequences)
    return float((found - expected).abs().max() / expected.abs().max())


def _expected(model: PreTrainedModel, sequence: list[int]) -> Tensor:
    """Return `[steps + 1, vocab]` from one pass over the whole sequence."""
    return model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -NUM_STEPS - 1 :]


def _found(weights: LlamaWeights, sequences: list[list[int]]) -> Tensor:
    """Return `[steps + 1, sequences, vocab]`."""
    decoder = LlamaDecoder(weights, compute_dtype=torch.float32, num_positions=max(LENGTHS))
    states = decoder.read_prompts([sequence[:-NUM_STEPS] for sequence in sequences])
    cache = decoder.empty_cache(len(sequences))
    cache.enter(torch.arange(len(sequences)), states, torch.arange(len(sequences)))
    found = [states.logits]
    for step in range(NUM_STEPS):
        token_ids = torch.tensor([sequence[step - NUM_STEPS] for sequence in sequences])
        found.append(decoder.step(token_ids, states.lengths + step, cache))
    return torch.stack(found)


MAX_PREFILL_TOKENS = 16384
"""Prompt tokens, padding included, that go through the model at once; bounds the memory of long prompts."""


@runtime_checkable
class CausalModel(Protocol):
    """What the sampler needs of a policy (`klimb.policies.Policy` has it)."""

    model: nn.Module
    device: torch.device
    compute_dtype: torch.dtype
    end_ids: tuple[int, ...]
    temperature: float


@runtime_checkable
class TextModel(Protocol):
    """What stop strings need of a policy besides."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the tokens, without special tokens."""
        ...


_Complete = Callable[[Sequence[Sequence[int]], int, Drawing, Tensor], Iterator[tuple[int, list[Completion]]]]


class LocalSampler:
    """Draws from a policy in this process (a `StreamingSampler` and a `ConversationSampler`).

    Each prompt goes through the model once for all its samples; its keys and values are then copied to one row per
    sample. On a CPU, a Llama-type model whose logits klimb's own decoder reproduces is decoded by that, with continuous
    batching: as rows finish, samples that wait take their places. Other models are decoded through transformers, in
    waves; there a row leaves the batch some time after its end token. `describe` says which it is.

    The random number of (prompt, sample, token) depends on the generator and these three alone. So the same generator
    state and prompts give the same tokens, and `max_batch`, the other rows' lengths or who decodes change no draw: they
    can change a token only where their rounding moves a probability across its random number. So where memory runs out,
    half as many rows are decoded at once from then on, and the prompts that are left are begun again.

    Attributes:
        policy: whose model is sampled; its weights are read at every call, so it may be trained in between.
        max_batch: rows decoded at once; more wait.
        compact_fraction: finished rows that nobody replaces are dropped when they make up at least this share.
        max_prefill_tokens: prompt tokens, padding included, that go through the model at once.
        decoder: `auto`, or `transformers` to decode through transformers whatever the model.
        record_support: let completions say which tokens could be drawn, where top-k, top-p or min-p cut some off. With
            a flat distribution and a large vocabulary these are thousands of ids for each token.
    """

    def __init__(
        self,
        policy: CausalModel,
        *,
        max_batch: int = 128,
        compact_fraction: float = 0.25,
        max_prefill_tokens: int = MAX_PREFILL_TOKENS,
        decoder: Literal["auto", "transformers"] = "auto",
        record_support: bool = False,
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch must be >= 1, got {max_batch}")
        if not 0 < compact_fraction <= 1:
            raise ValueError(f"compact_fraction must be in (0, 1], got {compact_fraction}; 1 never drops a row early")
        if max_prefill_tokens < 1:
            raise ValueError(f"max_prefill_tokens must be >= 1, got {max_prefill_tokens}")
        if decoder not in ("auto", "transformers"):
            raise ValueError(f"decoder must be 'auto' or 'transformers', got {decoder!r}")
        self.policy = policy
        self.max_batch = max_batch
        self.compact_fraction = compact_fraction
        self.max_prefill_tokens = max_prefill_tokens
        self.decoder = decoder
        self.record_support = record_support
        # A policy that is trained has one, which its checkpoints keep.
        self.pass_limit: PassLimit = getattr(policy, "pass_limit", None) or PassLimit()
        self._reason: str | None = None
        self._attention: str | None = None

    def describe(self) -> str:
        """One line: what decodes the policy's model, and why. Tries the model on a few tokens the first time."""
        reason = self.reason_for_transformers()
        return f"decoded by transformers ({reason})" if reason else "decoded by klimb's own decoder"

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
        groups = dict(self.stream(prompts, num_samples=num_samples, settings=settings, generator=generator))
        return [groups[i] for i in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Each prompt's number with its completions, as soon as the last of them has ended; the same as `sample` gives.

        Arguments and errors are those of `sample`. The random numbers are taken at once; the weights must not change
        before the last prompt has come. Decoded by transformers, all prompts come at the end.
        """
        self._check(prompts, num_samples, settings)
        shape = (settings.max_new_tokens, len(prompts) * num_samples)
        quantiles = torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator)
        return self._draw_at(prompts, num_samples, settings, quantiles, self._details())

    def sample_at(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        settings: SamplingSettings,
        quantiles: Float[Tensor, "time samples"],
        details: TokenDetails | None = None,
    ) -> list[list[Completion]]:
        """Return completions at given random numbers, as many of each prompt; the rest is as with `sample`.

        Args:
            prompts: token ids.
            settings: of the draws.
            quantiles: uniform in [0, 1), float64: those of each token, the samples of the first prompt first.
            details: what is recorded of each token besides its log-probabilities; None: what `sample` records.
        """
        num_samples, left = divmod(quantiles.shape[1], max(1, len(prompts)))
        if left or len(quantiles) != settings.max_new_tokens:
            raise ValueError(
                f"quantiles must be [max_new_tokens = {settings.max_new_tokens}, a multiple of {len(prompts)} prompts]"
                f", got {list(quantiles.shape)}"
            )
        self._check(prompts, num_samples, settings)
        groups = dict(self._draw_at(prompts, num_samples, settings, quantiles, details or self._details()))
        return [groups[i] for i in range(len(prompts))]

    def _draw_at(
        self,
        prompts: Sequence[Sequence[int]],
        num_samples: int,
        settings: SamplingSettings,
        quantiles: Tensor,
        details: TokenDetails,
    ) -> Iterator[tuple[int, list[Completion]]]:
        if not prompts:
            return iter(())
        complete = self._by_transformers if self.reason_for_transformers() else self._by_own_decoder
        return self._within_memory(complete, prompts, num_samples, settings, quantiles, details)

    def _details(self) -> TokenDetails:
        return TokenDetails(support=self.record_support)

    def converse(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        settings: SamplingSettings,
        generator: torch.Generator,
        answer: Answer,
        max_turns: int,
    ) -> Iterator[tuple[int, Dialogue]]:
        """Each prompt's number with its conversation, in the order in which conversations end.

        `answer` is called, in the caller's thread, with every turn that has ended, whatever ended it, and once for each
        turn. While its future waits, the others go on for some tokens; then all answers are waited for, so that what is
        drawn does not depend on when they come. A conversation
        ends with an answer: None, that to turn `max_turns`, or one that leaves no room for a token in the model's
        context. Ids of such a last answer are not used, and are not in `between`. A turn for which there is room, but
        not for `max_new_tokens`, may have as many tokens as there is room for.

        klimb's own decoder keeps what it has read of a conversation: a turn reads the answer alone. A conversation
        that waits keeps its place among the `max_batch`. transformers reads the whole history again, in rounds of all.

        The random number of (conversation, turn, token) depends on the generator and these three alone, and is taken
        from the generator at once. So the same generator state, prompts and answers give the same tokens and
        log-probabilities, whenever answers come. The random numbers are others than `sample` takes.

        Where memory runs out, half as many are decoded at once from then on; conversations go on after their last
        complete turn. A repetition penalty counts all tokens of the history, `min_new_tokens` and `stop` are a turn's.

        Args:
            prompts: one for each conversation; equal ones go through the model once.
            settings: of the draws; `max_new_tokens` is a turn's.
            generator: of the random numbers.
            answer: says what comes between a turn and the next.
            max_turns: of each conversation.

        Raises:
            ValueError: `max_turns` < 1, what `sample` refuses in prompts, or an answer outside the vocabulary.
            FloatingPointError: the model gave logits that are no distribution.
            Exception: whatever `answer` or its future raises.
        """
        self._check(prompts, 1, settings)
        limits = prompt_limits(self.model.config)
        conversations = Conversations(
            prompts,
            answer=answer,
            max_turns=max_turns,
            max_new_tokens=settings.max_new_tokens,
            context=limits.context,
            num_vocab=limits.num_vocab,
        )
        return self._converse_within_memory(conversations, settings, draw_seeds(len(prompts), generator))

    def _converse_within_memory(
        self, conversations: Conversations, settings: SamplingSettings, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Dialogue]]:
        run: TurnRun | None = None
        while conversations.num_open:
            # Answers, and their errors, come outside of `try`: their memory is not the sampler's.
            ready = conversations.at_turn if run is None else conversations.wait_for_answers() if run.is_due else []
            over = conversations.take_over()
            if run is not None:
                run.release([number for number, _ in over])
            yield from over
            ended: list[tuple[int, Completion]] | None = None
            reason, num_rows = "", conversations.num_open
            try:
                with plain_arithmetic():
                    run = run or self._turn_run(conversations, settings, seeds)
                    ended = run.advance(ready)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason, num_rows = str(error), run.num_rows if run else num_rows
            if ended is None:
                # Not inside of `except`: until there the traceback holds all that was decoded.
                run = None
                free_memory()
                self._halve(num_rows, reason.partition("\n")[0])
            for number, completion in ended or ():
                conversations.end_turn(number, completion)

    def _turn_run(self, conversations: Conversations, settings: SamplingSettings, seeds: Sequence[int]) -> TurnRun:
        """Return what draws the turns of the conversations from where they are."""
        if self.reason_for_transformers():

            def complete(prompts: Sequence[Sequence[int]], num_samples: int, quantiles: Tensor) -> list[Completion]:
                repeated = [prompt for prompt in prompts for _ in range(num_samples)]
                drawing = self._drawing(repeated, settings, self._details())
                groups = self._by_transformers(prompts, num_samples, drawing, quantiles)
                return [completion for _, group in groups for completion in group]

            return Rounds(conversations, seeds, complete, self._at_once(self.max_batch))
        histories = [conversations.history(number) for number in range(len(conversations))]
        return ConversationLanes(
            self.own_decoder(max(map(len, histories)) + settings.max_new_tokens),
            conversations,
            seeds=seeds,
            drawing=self._drawing(histories, settings, self._details()),
            limits=self._lane_limits(),
        )

    def _within_memory(
        self,
        complete: _Complete,
        prompts: Sequence[Sequence[int]],
        num_samples: int,
        settings: SamplingSettings,
        quantiles: Tensor,
        details: TokenDetails,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield what `stream` does; where memory runs out, the prompts that are left with half as many rows at once."""
        left, reason = list(range(len(prompts))), ""
        while left:
            of_left = quantiles.unflatten(1, (len(prompts), num_samples))[:, left].flatten(1)
            asked, left = left, []
            of_asked = [prompts[i] for i in asked]
            drawing = self._drawing([prompt for prompt in of_asked for _ in range(num_samples)], settings, details)
            found = complete(of_asked, num_samples, drawing, of_left)
            done: set[int] = set()
            try:
                for place, completions in found:
                    done.add(place)
                    yield asked[place], completions
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                left, reason = [i for place, i in enumerate(asked) if place not in done], str(error)
            if left:
                # Not inside of `except`: until there the traceback holds all that was decoded.
                del found
                free_memory()
                self._halve(len(asked) * num_samples, reason.partition("\n")[0])

    def _halve(self, num_asked: int, reason: str) -> None:
        """Take half of the rows that there were, which may have been fewer than are allowed."""
        num_rows = min(num_asked, self._at_once(self.max_batch))
        self.pass_limit.num_out_of_memory += 1
        if num_rows == 1:
            raise DoesNotFitError(
                f"sampling one answer at a time does not fit into memory ({reason}). Lower sampling.max_new_tokens, "
                "take a smaller model, or free memory of the device"
            )
        while self._at_once(self.max_batch) > num_rows // 2:
            self.pass_limit.num_sampling_halvings += 1
        logger.warning(
            "sampling %d answers at once ran out of memory (%s); from now on at most %d. "
            "sampling.max_batch = %d avoids the attempt",
            num_rows,
            reason,
            self._at_once(self.max_batch),
            self._at_once(self.max_batch),
        )

    def _at_once(self, number: int) -> int:
        return max(1, number >> self.pass_limit.num_sampling_halvings)

    def _drawing(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, details: TokenDetails) -> Drawing:
        policy = self.policy
        return make_drawing(
            settings,
            policy_temperature=policy.temperature,
            end_ids=policy.end_ids,
            prompts=prompts,
            decode=policy.decode if isinstance(policy, TextModel) else None,
            device=policy.device,
            details=details,
        )

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model; with an adapter, the one that has it in its layers."""
        model = self.policy.model
        return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)

    def reason_for_transformers(self) -> str:
        """Return an empty text if klimb's own decoder is used. Found at the first call, then kept."""
        if self.decoder == "transformers":
            return "as asked for"
        if self._reason is None:
            self._reason = reason_against_own_decoder(
                self.model, device=self.policy.device, compute_dtype=self.policy.compute_dtype
            )
        return self._reason

    def _by_own_decoder(
        self, prompts: Sequence[Sequence[int]], num_samples: int, drawing: Drawing, quantiles: Tensor
    ) -> Iterator[tuple[int, list[Completion]]]:
        run = LaneRun(
            self.own_decoder(max(map(len, prompts)) + len(quantiles)),
            prompts,
            num_samples=num_samples,
            drawing=drawing,
            quantiles=quantiles.cpu(),
            limits=self._lane_limits(),
        )
        while not run.is_complete:
            # Not around the `yield`: what the caller does in between is its own.
            with plain_arithmetic():
                complete = run.advance()
            yield from complete

    def own_decoder(self, num_positions: int) -> LlamaDecoder:
        """Return klimb's own decoder of the model, at the weights that it has now."""
        with plain_arithmetic():
            return LlamaDecoder(
                llama_weights(self.model), compute_dtype=self.policy.compute_dtype, num_positions=num_positions
            )

    def _lane_limits(self) -> LaneLimits:
        return LaneLimits(
            max_batch=self._at_once(self.max_batch),
            compact_fraction=self.compact_fraction,
            max_prefill_tokens=self._at_once(self.max_prefill_tokens),
        )

    def _by_transformers(
        self, prompts: Sequence[Sequence[int]], num_samples: int, drawing: Drawing, quantiles: Tensor
    ) -> Iterator[tuple[int, list[Completion]]]:
        policy = self.policy
        if self._attention is None:
            with torch.no_grad():
                self._attention = decoding_attention(self.model, policy.device)
        decoding = TransformersDecoding(
            model=self.model,
            device=policy.device,
            compute_dtype=policy.compute_dtype,
            attention=self._attention,
            max_batch=self._at_once(self.max_batch),
            compact_fraction=self.compact_fraction,
            max_prefill_tokens=self._at_once(self.max_prefill_tokens),
        )
        completions = decoding.complete(prompts, num_samples=num_samples, drawing=drawing, quantiles=quantiles)
        for i in range(len(prompts)):
            yield i, completions[i * num_samples : (i + 1) * num_samples]

    def _check(self, prompts: Sequence[Sequence[int]], num_samples: int, settings: SamplingSettings) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {num_samples}")
        if settings.stop and not isinstance(self.policy, TextModel):
            raise ValueError(f"stop strings need a policy that decodes, and {type(self.policy).__name__} has no decode")
        limits = prompt_limits(self.model.config)
        for i, prompt in enumerate(prompts):
            limits.check(prompt, settings, name=f"prompt {i}")

"""Floating-point operations and bytes that a step cannot do without, counted once.

A product of matrices counts 2 operations per multiplied pair. What an implementation computes twice (activations again
in the backward pass, tiles of logits again) is counted once, and so is a prompt that all responses of a group share.
Norms, activations, softmax and the optimizer's arithmetic are left out: they are bound by memory, not by products.
"""

from dataclasses import dataclass
from typing import Any

BACKWARD_PASSES = 2
"""The gradient takes one product in the inputs and one in the weights for each product of the forward pass."""

OPTIMIZER_BYTES_PER_PARAMETER = 28
"""AdamW in float32 reads weight, gradient and two moments, and writes weight and moments: 7 numbers of 4 bytes."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a decoder with gated feed-forward layers, without biases.

    Attributes:
        hidden: width of the residual stream.
        key_width: key-value heads times head size; the queries' is `query_width`.
        feed_forward: width inside the feed-forward layers.
    """

    layers: int
    hidden: int
    query_width: int
    key_width: int
    feed_forward: int
    vocab: int

    @classmethod
    def of(cls, config: Any) -> "ModelShape":
        """From a transformers configuration of the Llama family."""
        text = config.get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            query_width=text.num_attention_heads * head,
            key_width=text.num_key_value_heads * head,
            feed_forward=text.intermediate_size,
            vocab=text.vocab_size,
        )

    @property
    def layer_parameters(self) -> int:
        """Entries of all layers' matrices."""
        attention = 2 * self.hidden * self.query_width + 2 * self.hidden * self.key_width
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    @property
    def head_parameters(self) -> int:
        """Entries of the output matrix."""
        return self.hidden * self.vocab


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """One batch: groups of equally long responses to prompts of one length.

    Attributes:
        epochs: optimizer passes over the batch.
    """

    num_prompts: int
    group_size: int
    prompt_tokens: int
    response_tokens: int
    epochs: int = 1

    @property
    def num_responses(self) -> int:
        """Rows of the batch."""
        return self.num_prompts * self.group_size

    @property
    def num_response_tokens(self) -> int:
        """Tokens that are drawn and trained on."""
        return self.num_responses * self.response_tokens


def scoring_flops(model: ModelShape, step: StepShape, *, share_prompts: bool = True) -> int:
    """Operations of one forward pass that gives every response token its log-probability.

    The last token of a response is predicted, never read. With `share_prompts` a prompt is read once for its group.
    """
    prompts = step.num_prompts if share_prompts else step.num_responses
    read = step.response_tokens - 1
    tokens = prompts * step.prompt_tokens + step.num_responses * read
    pairs = prompts * causal_pairs(0, step.prompt_tokens) + step.num_responses * causal_pairs(step.prompt_tokens, read)
    layers = 2 * model.layer_parameters * tokens + attention_flops(model, pairs)
    return layers + 2 * model.head_parameters * step.num_response_tokens


def update_flops(model: ModelShape, step: StepShape, *, share_prompts: bool = True) -> int:
    """Operations of forward and backward passes over all epochs; no recomputation, no optimizer."""
    return (1 + BACKWARD_PASSES) * step.epochs * scoring_flops(model, step, share_prompts=share_prompts)


def attention_flops(model: ModelShape, pairs: int) -> int:
    """Operations of the scores and of the weighted sums, over so many (query, key) pairs of positions."""
    return 4 * model.layers * model.query_width * pairs


def causal_pairs(start: int, count: int) -> int:
    """(query, key) pairs of `count` positions that follow `start` others, each seeing all before it and itself."""
    return count * start + count * (count + 1) // 2


def sampling_floor_seconds(
    model: ModelShape, step: StepShape, *, flops_per_second: float, bytes_per_second: float, bytes_per_number: int
) -> float:
    """Return the shortest time in which the batch can be drawn, all rows at once.

    Reading the prompts is bound by products. Each further token is bound by the slower of the two: the products of all
    rows, or reading the weights once and every row's keys and values.
    """
    prompts = step.num_prompts * step.prompt_tokens
    pairs = step.num_prompts * causal_pairs(0, step.prompt_tokens)
    prefill = 2 * model.layer_parameters * prompts + attention_flops(model, pairs)
    prefill += 2 * model.head_parameters * step.num_prompts
    seconds = prefill / flops_per_second
    weights = model.layer_parameters + model.head_parameters
    for drawn in range(1, step.response_tokens):
        context = step.prompt_tokens + drawn
        operations = step.num_responses * (2 * weights + attention_flops(model, context))
        keys_and_values = 2 * model.layers * model.key_width * context * step.num_responses
        read = bytes_per_number * (weights + keys_and_values)
        seconds += max(operations / flops_per_second, read / bytes_per_second)
    return seconds


def optimizer_floor_seconds(num_parameters: int, *, steps: int, bytes_per_second: float) -> float:
    """Return the shortest time of so many AdamW steps: their weights, gradients and moments through memory once."""
    return steps * OPTIMIZER_BYTES_PER_PARAMETER * num_parameters / bytes_per_second

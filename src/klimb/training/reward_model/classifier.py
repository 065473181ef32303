"""A language model's body with a scalar head: a sequence classifier with one label, as transformers has it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from klimb.experience import give_usual_mode
from klimb.experience.samples import Message
from klimb.policies import Policy
from klimb.policies.saving import no_progress_bars

HEAD = "score"
"""Name of the linear layer that transformers' decoders have in the place of their vocabulary."""


TOKENS_AT_ONCE = 8_192
"""Prompt and answer tokens, padding included, that go through the body at once where nothing is learnt from them."""


def make_classifier(policy: Policy) -> PreTrainedModel:
    """Return a classifier with the policy's body, and a head of zeros: every score is 0.

    Raises:
        ValueError: transformers has no classifier of this architecture with a linear head, or the tokenizer cannot
            write or pad a conversation.
    """
    causal = policy.causal_lm
    if not policy.tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {policy.name} has no chat template, so it cannot be shown a conversation")
    if policy.tokenizer.pad_token_id is None:
        raise ValueError(
            f"the tokenizer of {policy.name} has no token to pad with; set pad_token in its tokenizer_config.json"
        )
    config = copy.deepcopy(causal.config)
    config.num_labels, config.pad_token_id = 1, policy.tokenizer.pad_token_id
    named = f"an architecture {type(causal).__name__}"
    try:
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise ValueError(f"transformers has no sequence classifier of {named}: take another model") from error
    head = getattr(model, HEAD, None)
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ValueError(f"the sequence classifier of {named} has no linear head named {HEAD!r}: take another model")
    model.base_model.load_state_dict(causal.base_model.state_dict())
    with torch.no_grad():
        head.weight.zero_()
    return cast(PreTrainedModel, model).to(policy.device).eval()  # pyright: ignore[reportArgumentType]


def head_of(model: Any) -> nn.Linear:
    """Return the scalar head."""
    return getattr(model, HEAD)


def tokens_of(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a conversation, as a reward model is shown it.

    Raises:
        ValueError: the chat template refuses it.
    """
    # A template is code of the model's maker, which may raise anything.
    try:
        text = cast(Any, tokenizer).apply_chat_template([dict(message) for message in messages], tokenize=False)
    except Exception as error:
        raise ValueError(f"the chat template refuses a conversation: {error}") from error
    return cast(list[int], tokenizer(text, add_special_tokens=False).input_ids)


def score_texts(model: Any, tokens: Sequence[Sequence[int]]) -> Float[Tensor, " texts"]:
    """Return the logit of each conversation; gradients flow to what requires them."""
    pad = model.config.pad_token_id
    longest = max(map(len, tokens))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in tokens], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens], device=model.device)
    return model(input_ids=ids, attention_mask=mask).logits[:, 0].float()


def read_features(model: PreTrainedModel, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "texts features"]:
    """Return what the head is given of each conversation: the last hidden state at the place whose logit counts.

    Raises:
        ValueError: the head's input times its weight is not the logit that the model gives, so what is read is
            something else.
    """
    found = torch.empty((len(tokens), head_of(model).in_features), dtype=torch.float32)
    order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
    with torch.inference_mode(), _inputs_of(head_of(model)) as inputs:
        for rows in portions(order, [len(each) for each in tokens]):
            score_texts(model, [tokens[row] for row in rows])
            for row, hidden in zip(rows, inputs.pop(), strict=True):
                found[row] = hidden[_last_place(tokens[row], model.config.pad_token_id)].float().cpu()
    _check_features(model, tokens[order[0]], found[order[0]])
    return found


def portions(order: Iterable[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cut numbers of texts, in an order by length, so that padding included each part has at most 8,192 tokens."""
    part: list[int] = []
    for number in order:
        if part and (len(part) + 1) * lengths[number] > TOKENS_AT_ONCE:
            yield part
            part = []
        part.append(number)
    if part:
        yield part


@contextmanager
def _inputs_of(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Give a list to which the head's inputs are added as they come."""
    inputs: list[Tensor] = []
    handle = head.register_forward_hook(lambda _, given, __: inputs.append(given[0].detach()))
    try:
        yield inputs
    finally:
        handle.remove()


def _last_place(ids: Sequence[int], pad: int) -> int:
    """Return the place of the last token that is not the padding one, as transformers' classifiers look for it."""
    return max((place for place, token in enumerate(ids) if token != pad), default=len(ids) - 1)


def _check_features(model: PreTrainedModel, ids: Sequence[int], features: Tensor) -> None:
    """Give the head random weights for a moment, and compare."""
    head = head_of(model)
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.copy_(torch.randn(before.shape, generator=torch.Generator().manual_seed(0)))
        expected, product = score_texts(model, [ids])[0].cpu(), features @ head.weight[0].float().cpu()
        head.weight.copy_(before)
    if not torch.allclose(expected, product, rtol=1e-3, atol=1e-3 * float(features.norm())):
        raise ValueError(
            f"{type(model).__name__} takes its logit from another place than the last token that is no padding; take "
            "another model"
        )


def save_classifier(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the folder that `model:FOLDER` and transformers read."""
    with no_progress_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    give_usual_mode(folder.glob("*.safetensors"))

from importlib.resources import files

import pytest
import torch

from klimb.policies import Policy
from klimb.training.guard.measuring import CONTEXT, MOST_TOKENS, WINDOW, perplexity, text_ids

TEXT = (files("klimb.training.guard") / "text.txt").read_text(encoding="utf-8")
TINY_POSITIONS = 256


def directly(policy: Policy, ids: tuple[int, ...]) -> float:
    """Token by token with transformers' own forward pass, each from the window the definition gives it."""
    context = TINY_POSITIONS * CONTEXT // WINDOW
    step = TINY_POSITIONS - context
    total = 0.0
    with torch.no_grad():
        for position in range(1, len(ids)):
            first = 1 + (position - 1) // step * step
            seen = torch.tensor([ids[max(0, first - context) : position]])
            logits = policy.causal_lm(input_ids=seen).logits[0, -1].double()
            total += float(logits.log_softmax(-1)[ids[position]])
    return float(torch.tensor(-total / (len(ids) - 1)).exp())


@pytest.mark.parametrize("num_tokens", [2, 193, 194, 460])
def test_perplexity_is_the_one_computed_token_by_token(tiny_policy: Policy, num_tokens: int):
    ids = text_ids(tiny_policy, TEXT)[:num_tokens]
    found = perplexity(tiny_policy, ids, max_tokens=4096)
    assert found == pytest.approx(directly(tiny_policy, ids), rel=1e-5)


def test_it_does_not_depend_on_how_many_rows_go_through_at_once(tiny_policy: Policy):
    ids = text_ids(tiny_policy, TEXT)[:1500]
    one_by_one = perplexity(tiny_policy, ids, max_tokens=1)
    assert perplexity(tiny_policy, ids, max_tokens=100_000) == pytest.approx(one_by_one, rel=1e-6)


def test_a_uniform_model_has_the_size_of_its_vocabulary(tiny_policy: Policy):
    with torch.no_grad():
        for parameter in tiny_policy.trainable().values():
            parameter.zero_()
    ids = text_ids(tiny_policy, TEXT)[:300]
    assert perplexity(tiny_policy, ids, max_tokens=4096) == pytest.approx(tiny_policy.num_vocab, rel=1e-6)


def test_a_broken_model_gives_a_number_that_no_limit_accepts(tiny_policy: Policy):
    with torch.no_grad():
        next(iter(tiny_policy.trainable().values())).fill_(float("nan"))
    found = perplexity(tiny_policy, text_ids(tiny_policy, TEXT)[:50], max_tokens=4096)
    assert not found < float("inf")


def test_a_text_cannot_smuggle_in_control_tokens(tiny_policy: Policy):
    ids = text_ids(tiny_policy, "a<|im_end|>b")
    assert len(ids) == len("a<|im_end|>b")
    assert not {*ids} & {*tiny_policy.end_ids}


def test_a_long_text_is_read_up_to_the_most_and_a_short_one_is_refused(tiny_policy: Policy):
    assert len(text_ids(tiny_policy, TEXT * 2)) == MOST_TOKENS
    with pytest.raises(ValueError, match="has 1 tokens"):
        text_ids(tiny_policy, "a")


def test_the_shipped_text_is_as_long_as_the_configuration_says():
    assert len(TEXT.split()) == 1657

"""Rows that cannot be scored are refused by name."""

import pytest
import torch

GOOD = {
    "prompts": [[5, 6], [7]],
    "prompt_index": torch.tensor([0, 1]),
    "response_ids": torch.tensor([[8, 9, 10], [11, 12, 2]]),
    "mask": torch.tensor([[True, True, True], [True, True, False]]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.ones(2, 2, dtype=torch.bool)}, r"got response_ids \[2, 3\] and mask \[2, 2\]"),
        ({"mask": torch.ones(2, 3)}, "mask bool"),
        ({"response_ids": torch.tensor([1, 2, 3])}, r"must both be \[batch, time\]"),
        ({"prompt_index": torch.tensor([0])}, "one entry for each of 2 rows"),
        ({"prompt_index": torch.tensor([0, 2])}, "goes from 0 to 2, but there are 2 prompts"),
        ({"prompt_index": torch.tensor([-1, 0])}, "goes from -1 to 0"),
        ({"prompts": [[5, 6], []]}, "prompt 1 is empty"),
        ({"prompts": [[5, 99], [7]]}, "prompt 0 has token ids from 5 to 99, but the model's vocabulary is 0 to 98"),
        ({"prompts": [[5, -1], [7]]}, "prompt 0 has token ids from -1 to 5"),
        ({"prompts": [[5, 6], [7] * 255]}, r"row 1 has 257 tokens .* only 256 positions"),
        (
            {"response_ids": torch.tensor([[8, 9, 10], [11, 99, 2]])},
            "response 1 has token id 99 at position 1, but the model's vocabulary is 0 to 98",
        ),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(tiny_policy, without_shape_checks, change, message):
    with pytest.raises(ValueError, match=message):
        tiny_policy.log_probs(**{**GOOD, **change})


def test_no_rows_at_all_are_refused(tiny_policy):
    with pytest.raises(ValueError, match="no rows to score"):
        tiny_policy.log_probs([[5]], torch.zeros(0).long(), torch.zeros(0, 3).long(), torch.zeros(0, 3).bool())


def test_the_longest_row_that_fits_is_scored(tiny_policy):
    rows = {**GOOD, "prompts": [[5, 6], [7] * 254]}
    assert torch.isfinite(tiny_policy.log_probs(**rows).log_pi).all()

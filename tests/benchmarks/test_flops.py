"""Operation counts against values worked out by hand on a model small enough for that."""

from types import SimpleNamespace

import pytest

from benchmarks.flops import (
    ModelShape,
    StepShape,
    attention_flops,
    causal_pairs,
    optimizer_floor_seconds,
    sampling_floor_seconds,
    scoring_flops,
    update_flops,
)

# One layer: queries and output 2·4·4, keys and values 2·4·2, feed-forward 3·4·8: 32 + 16 + 96 = 144 entries. Head 4·10.
MODEL = ModelShape(layers=1, hidden=4, query_width=4, key_width=2, feed_forward=8, vocab=10)
STEP = StepShape(num_prompts=1, group_size=2, prompt_tokens=3, response_tokens=2)


def test_matrix_entries_of_a_layer_and_of_the_head():
    assert (MODEL.layer_parameters, MODEL.head_parameters) == (144, 40)


def test_smollm2_has_as_many_matrix_entries_as_parameters_less_its_norms():
    config = SimpleNamespace(
        num_hidden_layers=30,
        hidden_size=576,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        vocab_size=49152,
    )
    config.get_text_config = lambda: config
    shape = ModelShape.of(config)
    # 134,515,008 parameters with a tied head; 61 norms of 576 are not matrices.
    assert shape.layer_parameters + shape.head_parameters == 134_515_008 - 61 * 576


def test_causal_pairs_of_positions_that_follow_others():
    # The 3rd and 4th position see 3 and 4.
    assert causal_pairs(2, 2) == 7
    assert causal_pairs(0, 3) == 1 + 2 + 3


def test_scoring_reads_a_shared_prompt_once_and_no_last_token():
    # Read: 3 of the prompt, 1 of each response. Pairs: 6 of the prompt, 4 of each response's first token. Head: 4.
    assert scoring_flops(MODEL, STEP) == 2 * 144 * (3 + 2) + 4 * 4 * (6 + 2 * 4) + 2 * 40 * 4


def test_scoring_of_separate_rows_reads_the_prompt_for_each():
    expected = 2 * 144 * 2 * (3 + 1) + attention_flops(MODEL, 2 * (6 + 4)) + 2 * 40 * 4
    assert scoring_flops(MODEL, STEP, share_prompts=False) == expected


def test_an_update_is_three_forward_passes_for_each_epoch():
    twice = StepShape(num_prompts=1, group_size=2, prompt_tokens=3, response_tokens=2, epochs=2)
    assert update_flops(MODEL, twice) == 6 * scoring_flops(MODEL, STEP)


def test_sampling_takes_the_slower_of_products_and_memory():
    # One operation a second and endless bandwidth: the prompt, its head once, then one more token of two rows.
    prefill = 2 * 144 * 3 + 16 * 6 + 2 * 40
    decode = 2 * (2 * 184 + 16 * 4)
    products = sampling_floor_seconds(MODEL, STEP, flops_per_second=1, bytes_per_second=1e30, bytes_per_number=2)
    assert products == pytest.approx(prefill + decode)
    # One byte a second and endless products: weights once, keys and values of 4 positions in both rows.
    memory = sampling_floor_seconds(MODEL, STEP, flops_per_second=1e30, bytes_per_second=1, bytes_per_number=2)
    assert memory == pytest.approx(2 * (184 + 2 * 2 * 4 * 2))


def test_the_optimizer_moves_28_bytes_a_parameter():
    assert optimizer_floor_seconds(10, steps=3, bytes_per_second=7) == 120

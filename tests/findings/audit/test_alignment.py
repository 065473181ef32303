"""Log-probabilities that are none, that belong elsewhere, and texts that are not their tokens."""

import math

import numpy as np
import pytest
from tests.findings.audit.fabricated import END, drawn, made

from klimb.experience.samples import Sample, SamplingSettings
from klimb.findings.audit.alignment import (
    BROKEN,
    SHIFT,
    UNUSABLE,
    check_alignment,
    fault_of,
    first_token_conflicts,
    shift_test,
)
from klimb.findings.audit.evidence import pair_up
from klimb.findings.audit.thresholds import Thresholds

LIMITS = Thresholds()


def found(samples, *, log_pi=None, decode=None):
    pairs = None if log_pi is None else pair_up(samples, log_pi)
    return {f.name: f for f in check_alignment(samples, pairs, decode, LIMITS).block.findings}


def late(sample: Sample) -> Sample:
    return made(0, ids=sample.response_ids, log_mu=(0.0, *sample.log_mu[:-1]), sample_id=sample.sample_id)


def early(sample: Sample) -> Sample:
    return made(0, ids=sample.response_ids, log_mu=(*sample.log_mu[1:], 0.0), sample_id=sample.sample_id)


def test_errors_of_each_place_by_hand():
    pairs = pair_up([made(log_mu=(-1.0, -2.0, -4.0))], [(-1.5, -2.0, -3.0)])
    test = shift_test(pairs, LIMITS)
    # −1: |−1 + 2|, |−2 + 3|; 0: 0.5, 0, 1; +1: |−2 + 1.5|, |−4 + 2|
    assert test.errors == pytest.approx((1.0, 0.5, 1.25))
    assert test.place == 0


def test_neighbours_in_other_samples_are_not_compared():
    pairs = pair_up([made(log_mu=(-1.0, -1.0, -9.0)), made(1, log_mu=(-1.0, -1.0, -9.0))], [(-1.0, -1.0, -9.0)] * 2)
    # +1 within a sample: |−1 + 1|, |−9 + 1|
    assert shift_test(pairs, LIMITS).errors[2] == pytest.approx(4.0)


@pytest.mark.parametrize(("move", "place"), [(late, 1), (early, -1)])
def test_a_shift_is_found_in_its_direction(move, place: int):
    samples, log_pi = drawn()
    moved = [move(sample) for sample in samples]
    test = shift_test(pair_up(moved, log_pi), LIMITS)
    assert test.place == place
    assert len(test.shifted_rows) == len(samples)
    assert found(moved, log_pi=log_pi)[SHIFT].status == "bad"


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_data_of_the_same_or_another_policy_is_not_called_shifted(noise: float):
    samples, log_pi = drawn(noise=noise)
    assert found(samples, log_pi=log_pi)[SHIFT].number == 0


def test_scores_that_have_nothing_to_do_with_the_data_are_not_called_shifted():
    samples, _ = drawn()
    other = [tuple(-np.random.default_rng(9).exponential(1.0, len(s.response_ids))) for s in samples]
    assert found(samples, log_pi=other)[SHIFT].number < 0.01


def test_a_shifted_tenth_is_found_among_good_samples():
    samples, log_pi = drawn()
    mixed = [late(sample) if row % 10 == 0 else sample for row, sample in enumerate(samples)]
    findings = found(mixed, log_pi=log_pi)
    assert findings[SHIFT].number == pytest.approx(0.1, abs=0.02)
    assert findings[UNUSABLE].status == "bad"


def test_near_certain_tokens_are_not_called_shifted():
    log_pi = [(-0.001, -0.002, -0.0005, -0.003)] * 5
    samples = [made(row, ids=(5, 6, 7, END), log_mu=(-0.002, -0.0005, -0.003, -0.001)) for row in range(5)]
    assert found(samples, log_pi=log_pi)[SHIFT].number == 0


def test_single_tokens_cannot_be_tested():
    samples = [made(ids=(END,), log_mu=(-1.0,))]
    assert found(samples, log_pi=[(-1.0,)])[SHIFT].status == "unknown"


def test_without_a_model_shifted_first_tokens_disagree():
    # After one prompt both start with token 5; the second token differs, and so does its probability.
    right = [
        made(0, ids=(5, 6, END), log_mu=(-0.5, -1.0, -0.1)),
        made(1, ids=(5, 7, END), log_mu=(-0.5, -2.0, -0.1)),
        made(2, ids=(5, 8, END), log_mu=(-0.5, -3.0, -0.1)),
    ]
    assert first_token_conflicts(right) == (0, 3)
    assert first_token_conflicts([early(sample) for sample in right]) == (2, 3)


def test_other_settings_are_not_compared():
    warm = SamplingSettings(temperature=1.5)
    samples = [
        made(0, ids=(5, 6, END)),
        made(1, ids=(5, 7, END), log_mu=(-3.0, -1.0, -1.0), sampling=warm),
    ]
    assert first_token_conflicts(samples) == (0, 0)


@pytest.mark.parametrize(
    ("log_mu", "fault"),
    [
        ((-1.0, math.nan, -1.0), "NaN"),
        ((-1.0, -math.inf, -1.0), "−inf"),
        ((-1.0, 0.2, -1.0), "above 0"),
        ((-1.0, math.inf, -1.0), "above 0"),
        ((0.0, 0.0, 0.0), "all 0"),
        ((-1.0, 1e-7, -1.0), ""),
        ((-1.0, 0.0, 0.0), ""),
    ],
)
def test_numbers_that_are_no_log_probabilities(log_mu: tuple[float, ...], fault: str):
    assert fault_of(made(log_mu=log_mu)) == fault


def test_zeros_are_right_where_the_most_likely_token_was_taken():
    assert fault_of(made(log_mu=(0.0, 0.0, 0.0), sampling=SamplingSettings(temperature=0))) == ""


def test_broken_samples_are_counted_by_what_is_wrong():
    samples = [made(n, log_mu=(-1.0, math.nan, -1.0)) for n in range(2)] + [made(n) for n in range(2, 10)]
    finding = found(samples)[BROKEN]
    assert (finding.number, finding.status) == (0.2, "bad")
    assert "NaN: 2" in finding.title


def test_absent_broken_and_moved_add_up():
    samples, log_pi = drawn(num_prompts=10)
    samples = [late(sample) for sample in samples[:40]] + [made(n, log_mu=None) for n in range(40, 80)]
    assert found(samples, log_pi=[*log_pi[:40], *[None] * 40])[UNUSABLE].number == pytest.approx(1.0)


def test_a_changed_text_fails_the_round_trip():
    samples = [made(0, response="11 12"), made(1, response="11 13")]
    finding = found(samples, decode=lambda ids: " ".join(str(i) for i in ids if i != END))[
        "token ids decode to the text"
    ]
    assert (finding.number, finding.status) == (0.5, "bad")


def test_the_round_trip_looks_at_rows_spread_over_the_data():
    limits = Thresholds(round_trip_rows=10)
    samples = [made(n, response="right" if n < 50 else "changed") for n in range(100)]
    block = check_alignment(samples, None, lambda ids: "right", limits).block
    assert next(f for f in block.findings if f.name.endswith("the text")).number == pytest.approx(0.5)


@pytest.mark.parametrize("decode", [None, lambda ids: "" if ids[-1] == END else "x"])
def test_missing_end_tokens_are_seen_with_and_without_a_tokenizer(decode):
    samples = [made(n, ids=(9, n, END)) for n in range(90)] + [made(n, ids=(9, 9, n)) for n in range(100, 110)]
    finding = found(samples, decode=decode)["finished responses have their end token"]
    assert finding.status == "bad"
    assert finding.number == pytest.approx(0.9, abs=0.011)


def test_scores_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"sample s00000: 2 scores for 3 drawn tokens"):
        pair_up([made()], [(-1.0, -1.0)])


def test_infinite_values_are_left_out_and_counted():
    pairs = pair_up([made(0), made(1, log_mu=(-1.0, -math.inf, -1.0))], [(-1.0, -1.0, -1.0)] * 2)
    assert (pairs.rows, pairs.num_left_out) == ((0,), 1)

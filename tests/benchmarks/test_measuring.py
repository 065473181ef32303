"""Ratios pair runs that were neighbours, and nobody always goes first."""

import math

import pytest

from benchmarks.measuring import foreign_cores, in_turns, paired_ratios


def test_ratios_are_paired_so_that_drift_cancels():
    # Both contenders slow down by half in the second round; the first one takes twice as long throughout.
    ratios = paired_ratios([2.0, 3.0, 4.0], [1.0, 1.5, 2.0])
    assert (ratios.median, ratios.lowest, ratios.highest, ratios.num_pairs) == (2.0, 2.0, 2.0, 3)


def test_the_median_of_an_even_number_of_ratios_is_between_the_middle_two():
    ratios = paired_ratios([1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 1.0])
    assert (ratios.median, ratios.lowest, ratios.highest) == (3.0, 1.0, 8.0)


@pytest.mark.parametrize(("above", "below"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])])
def test_ratios_without_pairs_are_refused(above: list[float], below: list[float]):
    with pytest.raises(ValueError, match=r"expected as many|denominators"):
        paired_ratios(above, below)


def test_turns_change_their_order_from_round_to_round():
    assert list(in_turns(["a", "b"], 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_other_processes_load_is_what_the_machine_used_less_ones_own():
    assert foreign_cores(5.0, 3.0, 4.0) == 0.5
    # The kernel counts in ticks: a little less than one's own is nothing, not a negative load.
    assert foreign_cores(2.99, 3.0, 4.0) == 0.0


def test_a_machine_that_cannot_tell_does_not_look_quiet():
    assert math.isnan(foreign_cores(float("nan"), 3.0, 4.0))

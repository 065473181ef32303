import pytest
from hypothesis import given
from hypothesis import strategies as st

from klimb.ui.chart import smoothed, spread, thinned

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)


@given(numbers, st.integers(4, 60))
def test_thinning_keeps_ends_and_extremes_within_its_limit(values: list[float], most: int):
    kept = thinned(values, most=most)
    assert kept == sorted(set(kept))
    assert len(kept) <= most or len(values) <= most
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    shown = [values[index] for index in kept]
    assert (min(shown), max(shown)) == (min(values), max(values))


def test_a_spike_of_one_step_among_thousands_stays():
    values = [0.0] * 5000
    values[3217] = 1.0
    assert 3217 in thinned(values, most=40)


def test_spread_indices_are_few_and_reach_both_ends():
    assert spread(3, most=4) == [0, 1, 2]
    assert spread(101, most=5) == [0, 25, 50, 75, 100]


def test_a_straight_line_is_smoothed_into_itself():
    line = [3 - 0.5 * step for step in range(50)]
    assert smoothed(line, window=9) == pytest.approx(line)


def test_the_middle_is_the_mean_of_its_neighbours_and_the_ends_are_themselves():
    assert smoothed([1.0, 5.0, 3.0, 7.0], window=3) == pytest.approx([1.0, 3.0, 5.0, 7.0])
    assert smoothed([], window=3) == []


def test_a_small_change_of_large_values_survives_smoothing():
    assert smoothed([1e15 + step for step in range(5)], window=3)[2] - 1e15 == 2.0


def test_limits_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="most must be 4 or more"):
        thinned([1.0], most=3)
    with pytest.raises(ValueError, match="window must be 1 or more"):
        smoothed([1.0], window=0)

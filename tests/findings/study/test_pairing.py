import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from klimb.findings.statistics.pairing import holm, level_of_look, paired_test, seeds_needed, sign_flip_p

generator = np.random.default_rng(5)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_one_column_gives_the_paired_t_test():
    column = np.array([0.1, 0.3, -0.05, 0.2, 0.15])
    test, expected = paired_test([column[:, None]]), stats.ttest_1samp(column, 0)
    assert test.p_value == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval(0.95)
    assert (test.difference.low, test.difference.high) == pytest.approx((ends.low, ends.high))


def test_variance_of_a_table_is_that_of_its_mean_squares():
    # Rows 1 and 3 above 0 apart by 2, columns apart by 4, nothing else: d = row + column.
    table = np.array([[-1.0, 3.0], [1.0, 5.0]])
    # MS_seed = 2·var(1, 3) = 4, MS_problem = 2·var(0, 4) = 16, MS_rest = 0; Var = (4 + 16) / 4.
    test = paired_test([table])
    assert math.fsum(part.variance for part in test.parts) == pytest.approx(5.0)
    # Satterthwaite with one degree of freedom each: 5² / (1² + 4²).
    reach = stats.t.ppf(0.975, 25 / 17) * math.sqrt(5)
    assert test.difference.high - test.difference.value == pytest.approx(reach)


def test_differences_of_tasks_are_averaged_and_their_variances_added():
    one, other = generator.normal(0.1, 0.2, (5, 1)), generator.normal(0.0, 0.1, (4, 1))
    test = paired_test([one, other])
    assert test.difference.value == pytest.approx((one.mean() + other.mean()) / 2)
    expected = (one.var(ddof=1) / 5 + other.var(ddof=1) / 4) / 4
    assert math.fsum(part.variance for part in test.parts) == pytest.approx(expected)


@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_p_does_not_depend_on_the_unit_and_turns_with_the_sign(scale, seed):
    table = np.random.default_rng(seed).normal(0.1, 1, (4, 6))
    there, back = paired_test([table]), paired_test([-scale * table])
    assert back.p_value == pytest.approx(there.p_value)
    assert back.difference.low == pytest.approx(-scale * there.difference.high)


@pytest.mark.parametrize(
    ("num_tasks", "of_seeds", "of_problems"), [(1, 0.03, 0.1), (2, 0.03, 0.0), (2, 0.0, 0.1), (1, 0.1, 0.0)]
)
def test_equal_methods_are_told_apart_in_at_most_one_of_twenty_studies(num_tasks, of_seeds, of_problems):
    draw = np.random.default_rng(2).standard_normal
    found = 0
    for _ in range(600):
        tables = [of_seeds * draw((5, 1)) + of_problems * draw((1, 40)) + 0.3 * draw((5, 40)) for _ in range(num_tasks)]
        found += paired_test(tables).p_value < 0.05
    assert found / 600 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_a_test_over_seeds_alone_would_take_the_problems_noise_for_a_difference():
    # The same few problems for all seeds: they favour one method by luck, and every seed repeats it.
    draw = np.random.default_rng(3).standard_normal
    tables = [0.02 * draw((5, 1)) + 0.3 * draw((1, 20)) + 0.05 * draw((5, 20)) for _ in range(300)]
    naive = sum(stats.ttest_1samp(table.mean(axis=1), 0).pvalue < 0.05 for table in tables) / 300
    both = sum(paired_test([table]).p_value < 0.05 for table in tables) / 300
    assert naive > 0.5
    assert both < 0.1


def test_one_pair_tells_nothing():
    test = paired_test([np.array([[0.5, 0.7]])])
    assert math.isnan(test.p_value) and not test.difference.is_known
    assert test.difference.reason == "two seeds that both finished are the least"


@pytest.mark.parametrize("size", [0.25, 0.2, 0.1, 1e-100])
def test_pairs_that_all_differ_alike_are_not_called_certain(size):
    # 0.5 + 0.1 - 0.5 is not 0.1: rounding is no spread.
    test = paired_test([np.full((3, 9), 0.5 + size) - 0.5 if size > 1e-9 else np.full((3, 9), size)])
    assert math.isnan(test.p_value) and not test.difference.is_known
    assert test.difference.reason == "all pairs differ by the same amount"


def test_rounding_of_the_scores_is_no_spread_of_their_small_differences():
    scores = np.array([[1e6 + 0.1], [2e6 + 0.1], [3e6 + 0.1]])
    differences = scores - np.array([[1e6], [2e6], [3e6]])
    assert math.isfinite(paired_test([differences]).p_value)
    assert paired_test([differences], scale=3e6).difference.reason == "all pairs differ by the same amount"


def test_pairs_that_do_not_differ_at_all_have_p_one_and_no_width():
    test = paired_test([np.zeros((3, 2))])
    assert test.p_value == 1 and test.difference.reason == "all pairs are equal"


@pytest.mark.parametrize("size", [1e200, 1e308, math.inf])
def test_numbers_too_large_to_square_are_named_as_such(size):
    test = paired_test([np.array([[size, -size], [size / 2, size]])])
    assert math.isnan(test.p_value) and "too large to square (overflow)" in test.difference.reason


def test_numbers_too_small_to_square_are_named_as_such():
    assert "too small to square" in paired_test([np.array([[1e-200], [2e-200]])]).difference.reason


def test_an_interval_says_what_it_rests_on():
    found = paired_test([np.array([[0.1, 0.3], [0.2, 0.2], [0.4, 0.1]])]).difference
    assert (found.unit, found.num_units, found.reason) == ("seed", 3, "")
    assert found.method.startswith("Student's t") and found.assumes


@pytest.mark.parametrize("tables", [[], [np.zeros((0, 3))], [np.zeros(3)]])
def test_tables_without_differences_are_refused(tables):
    with pytest.raises(ValueError, match="give a table"):
        paired_test(tables)


def test_a_difference_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        paired_test([np.array([[0.1, math.nan], [0.1, 0.2]])])


def test_sign_flip_of_five_equal_signs_reaches_its_smallest_p():
    assert sign_flip_p([np.array([[0.1], [0.3], [0.2], [0.4], [0.1]])]) == pytest.approx(2 / 32)


def test_sign_flip_is_the_share_of_all_sign_assignments():
    column = np.array([0.4, -0.1, 0.3, 0.2])
    sums = [abs(np.dot(signs, column)) for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flip_p([column[:, None]]) == pytest.approx(np.mean([s >= 0.8 - 1e-12 for s in sums]))


def test_sampled_sign_flips_come_near_the_exact_share():
    column = np.random.default_rng(1).normal(0.3, 1, 14)
    sums = np.array(list(itertools.product((1, -1), repeat=14))) @ column
    exact = np.mean(np.abs(sums) >= abs(column.sum()) - 1e-12)
    assert sign_flip_p([column[:, None]]) == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))


def test_holm_of_the_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_comparisons_without_a_test_are_not_counted_by_holm():
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[0] == pytest.approx(0.04) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.04)


@given(p_values)
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(values):
    adjusted = holm(values)
    for p, corrected in zip(values, adjusted, strict=True):
        assert p <= corrected <= min(1.0, len(values) * p) + 1e-12
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= -1e-12).all()


COLUMN = np.array([0.3, -0.1, 0.25, 0.05, 0.15])


def test_seeds_needed_would_find_the_lower_end_of_the_difference_and_one_fewer_would_not():
    needed = seeds_needed(paired_test([COLUMN[:, None]]))
    error = COLUMN.std(ddof=1) / math.sqrt(5)
    assert needed.at_least == pytest.approx(COLUMN.mean() - stats.t.ppf(0.8, 4) * error)

    def tells(number):
        error = COLUMN.std(ddof=1) / math.sqrt(number)
        return needed.at_least >= error * (stats.t.ppf(0.975, number - 1) + stats.t.ppf(0.8, number - 1))

    assert needed.more is not None
    assert tells(5 + needed.more) and not tells(5 + needed.more - 1)


def test_stricter_alpha_needs_more_seeds():
    test = paired_test([COLUMN[:, None]])
    assert seeds_needed(test, alpha=0.03).more > seeds_needed(test).more


def test_a_difference_whose_sign_may_be_chance_promises_no_number():
    needed = seeds_needed(paired_test([np.array([[0.1], [-0.1], [0.12], [-0.1]])]))
    assert needed.more is None and needed.at_least == 0 and not needed.for_problems


def test_where_problems_differ_and_seeds_agree_only_more_problems_would_tell():
    needed = seeds_needed(paired_test([np.array([[0.5, -0.4], [0.5, -0.4001], [0.5001, -0.4]])]))
    assert needed.more is None and needed.for_problems


def test_problems_that_differ_by_no_more_than_the_rest_are_not_blamed():
    # Here the problems' mean square exceeds the rest's, but no F test at 5 % finds it.
    draw = np.random.default_rng(0).standard_normal
    blamed = [seeds_needed(paired_test([0.04 + 0.4 * draw((3, 60))])).for_problems for _ in range(300)]
    assert np.mean(blamed) < 0.03


def test_the_looks_spend_no_more_than_alpha():
    levels = [level_of_look(look) for look in range(1, 60)]
    assert levels[0] == pytest.approx(0.05 * 2 / 3) and levels[1] == pytest.approx(levels[0] / 3)
    assert sum(levels) == pytest.approx(0.05)


@pytest.mark.slow
def test_looking_five_times_at_growing_studies_finds_nothing_in_19_of_20():
    draw, looks = np.random.default_rng(4).standard_normal, (3, 5, 8, 12, 20)
    found = plain = 0
    for _ in range(1500):
        table = 0.03 * draw((20, 1)) + 0.1 * draw((1, 20)) + 0.3 * draw((20, 20))
        p = [paired_test([table[:seeds]]).p_value for seeds in looks]
        found += any(one < level_of_look(at) for at, one in enumerate(p, start=1))
        plain += min(p) < 0.05
    assert found / 1500 < 0.05 and plain / 1500 > 0.08


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_the_unit_of_the_scores_moves_no_p(scale: float):
    table = np.outer(np.arange(1.0, 4.0), np.arange(1.0, 6.0))
    scaled = paired_test([scale * table])
    assert scaled.p_value == pytest.approx(paired_test([table]).p_value)
    assert seeds_needed(scaled).more == seeds_needed(paired_test([table])).more

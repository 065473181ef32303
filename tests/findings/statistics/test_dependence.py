"""What a number depends on is found, and what it does not depend on is not."""

import numpy as np

from klimb.findings.statistics import dependence_test


def columns_of(generator: np.random.Generator, rows: int = 200, number: int = 40) -> np.ndarray:
    return (generator.random((rows, number)) < 0.3).astype(np.float64)


def test_one_column_that_decides_is_found_and_named():
    generator = np.random.default_rng(0)
    columns = columns_of(generator)
    flips = generator.random(200) < 0.2
    found = dependence_test(columns, np.where(flips, 1 - columns[:, 7], columns[:, 7]))
    assert found is not None and found.strongest == 7 and found.correlation > 0.4
    assert found.p_value == 1 / 1000


def test_many_weak_columns_are_found_together():
    generator = np.random.default_rng(1)
    columns = generator.standard_normal((300, 40))
    values = columns.sum(axis=1) / 40**0.5 + generator.standard_normal(300)
    found = dependence_test(columns, values)
    assert found is not None and found.p_value < 0.01 and abs(found.correlation) < 0.35


def test_shuffled_values_are_called_dependent_as_often_as_the_level_says():
    generator = np.random.default_rng(2)
    p_values = []
    for seed in range(60):
        found = dependence_test(columns_of(generator, 60, 10), (generator.random(60) < 0.8) * 1.0, seed=seed)
        assert found is not None
        p_values.append(found.p_value)
    # Of 60 at 10 %, more than 14 come in one of 1000 tries.
    assert sum(p < 0.1 for p in p_values) <= 14 and min(p_values) > 0 and max(p_values) > 0.5


def test_where_nothing_varies_there_is_no_test():
    assert dependence_test(np.ones((9, 2)), np.arange(9.0)) is None
    assert dependence_test(np.eye(9), np.ones(9)) is None
    assert dependence_test(np.zeros((9, 0)), np.arange(9.0)) is None

"""What the audit says of chance holds: its interval, its alarms where nothing changed, its number of prompts."""

import math

import numpy as np
import pytest

from benchmarks.coverage import audit
from benchmarks.coverage.cells import Alarms, Coverage


def test_the_part_yields_both_kinds_of_cells():
    generator = np.random.default_rng(0)
    interval = audit.expected(audit.Shape(prompts=20), audit.passes(0.5), 5, generator)
    told = [
        audit.correlations(audit.CORRELATED[0], 3, generator),
        audit.drift(audit.LAYOUTS[1], 3, generator),
        audit.forecast(*audit.FORECASTS[2], 3, generator),
        audit.report(audit.REPORTS[0], 3, generator),
    ]
    assert isinstance(interval, Coverage)
    assert interval.known == 1.0
    assert all(isinstance(cell, Alarms) and 0 <= cell.rate <= 1 for cell in told)


# A rate of 5 % is seen as more than 12 % in one of 1000 tries of 100 sets, 80 % as less than 64 % in 60.
@pytest.mark.slow
def test_alarms_are_rare_where_nothing_changed():
    generator = np.random.default_rng(1)
    cells = [audit.report(shape, 100, generator) for shape in audit.REPORTS[1:4:2]]
    cells += [audit.correlations(shape, 100, generator) for shape in audit.CORRELATED[:12:4]]
    cells += [audit.drift(layout, 100, generator) for layout in audit.LAYOUTS[2:10:3]]
    assert {cell.case: cell.rate for cell in cells if cell.rate > 0.12} == {}


@pytest.mark.slow
def test_the_number_of_prompts_is_enough_four_times_in_five():
    generator = np.random.default_rng(2)
    cells = [audit.forecast(*case, 60, generator) for case in audit.FORECASTS[2::9]]
    assert {cell.case: cell.rate for cell in cells if not math.isnan(cell.rate) and cell.rate < 0.64} == {}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [audit.Shape(prompts=20), audit.Shape(prompts=50, answers=4, alike=0.3)], ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_expected_interval_holds_the_mean_of_all_prompts(shape: audit.Shape, rate: float):
    cell = audit.expected(shape, audit.passes(rate), 300, np.random.default_rng(3))
    assert cell.held >= 0.89  # 93 % is seen as less in fewer than one of 200 tries

"""The bounds of docs/statistics.md for studies, on a thinner grid than the table's."""

import itertools
import math

import numpy as np
import pytest

from benchmarks.coverage import study
from benchmarks.coverage.cells import Alarms, Coverage


def test_every_part_of_studies_yields_cells():
    parts = (study.improvements, study.profiles, study.differences, study.stability, study.looks)
    for part in parts:
        cell = next(iter(part(5, np.random.default_rng(0))))
        assert isinstance(cell, Coverage | Alarms) and cell.num_sets == 5 and cell.case


def held(part, num_sets, *, wanted):
    """Coverages of the cells with an interval whose case has these words."""
    found = [cell for cell in part(num_sets, np.random.default_rng(1)) if cell.known and wanted(cell.case)]
    assert found
    return {cell.case: cell.held for cell in found}


def below(rate, num_sets):
    """What a rate reaches by chance in one of a thousand."""
    return rate + 3.1 * math.sqrt(rate * (1 - rate) / num_sets)


@pytest.mark.slow
def test_intervals_of_interquartile_means_hold_for_normal_and_skewed_runs(monkeypatch):
    monkeypatch.setattr(study, "SPREADS", {name: study.SPREADS[name] for name in ("normal", "skewed")})
    cases = held(study.interquartile_means, 150, wanted=lambda case: True)
    assert min(cases.values()) > 0.93 - 3.1 * math.sqrt(0.07 * 0.93 / 150)
    assert np.mean(list(cases.values())) == pytest.approx(0.96, abs=0.015)


@pytest.mark.slow
def test_intervals_of_improvements_profiles_and_differences_hold():
    for part in (study.improvements, study.profiles, study.differences):
        cases = held(part, 150, wanted=lambda case: True)
        assert min(cases.values()) > 0.93 - 3.1 * math.sqrt(0.07 * 0.93 / 150), part.__name__


@pytest.mark.slow
def test_nothing_is_found_in_19_of_20_studies_of_equal_methods():
    generator = np.random.default_rng(2)
    parts = itertools.chain(study.families(40, generator), study.stability(200, generator), study.looks(200, generator))
    for cell in parts:
        if cell.truth == "nothing changed":
            assert cell.rate <= below(0.05, cell.num_sets), cell


@pytest.mark.slow
def test_forecasts_keep_their_power_where_the_difference_is_a_standard_error_or_more():
    cells = list(study.forecasts(60, np.random.default_rng(3)))
    told = [
        cell for cell in cells if cell.number.startswith("forecast") and cell.num_sets and "of 0.5" not in cell.truth
    ]
    said = sum(cell.num_sets for cell in told)
    assert sum(cell.rate * cell.num_sets for cell in told) / said > 0.9
    blamed = [cell for cell in cells if cell.number.startswith("more problems") and cell.num_sets]
    number = sum(cell.num_sets for cell in blamed)
    assert sum(cell.rate * cell.num_sets for cell in blamed) / number < 0.2

"""The bounds of the intervals over held-out problems, on a thinner grid than `python -m benchmarks.coverage`."""

import itertools
import math

import numpy as np
import pytest

from benchmarks.coverage.cells import Alarms, Coverage
from benchmarks.coverage.held_out import accuracies, changes, pass_at, reports, rewards
from benchmarks.coverage.tables import alarm_table, coverage_table

LOWEST = 0.93
ERRORS = 3.5
"""Standard errors of a counted share that chance may take a case of many below what is true of it."""


def too_low(cell: Coverage) -> bool:
    return cell.held < LOWEST - ERRORS * math.sqrt(LOWEST * (1 - LOWEST) / (cell.known * cell.num_sets))


def test_every_kind_of_case_yields_a_cell_with_an_interval():
    generator = np.random.default_rng(0)
    thin = {"sizes": (12,)}
    made = [
        *accuracies(8, generator, rates=(0.5,), correlations=(0.3,), **thin),
        *itertools.islice(changes(8, generator, **thin), 1),
        *itertools.islice(rewards(8, generator, **thin), 1),
        *itertools.islice(pass_at(8, generator, **thin), 1),
        *itertools.islice(reports(8, generator, **thin), 2),
    ]
    shown = [cell for cell in made if isinstance(cell, Coverage)]
    assert {cell.number for cell in shown} == {
        *("held-out accuracy", "held-out reward", "change on held-out problems", "pass@4")
    }
    assert all(cell.known == 1 and 0 < cell.width <= 4 for cell in shown)
    assert "| held-out accuracy | 2 |" in coverage_table(made)
    assert alarm_table(made).count("nothing changed") == 2


@pytest.mark.slow
def test_intervals_over_held_out_problems_hold_what_they_say():
    generator = np.random.default_rng(1)
    made = [
        *accuracies(400, generator, sizes=(5, 21, 100), rates=(0.05, 0.5, 0.94), correlations=(0.0, 0.3, 0.7)),
        *changes(400, generator, sizes=(10, 21)),
        *pass_at(400, generator, sizes=(21,)),
        *(cell for cell in rewards(400, generator, sizes=(21, 100)) if "log-normal" not in cell.case),
    ]
    assert [cell.case for cell in made if too_low(cell)] == []


@pytest.mark.slow
def test_a_report_of_a_run_in_which_nothing_changed_seldom_warns():
    made = list(reports(240, np.random.default_rng(2), sizes=(21,)))
    alarms = [cell for cell in made if isinstance(cell, Alarms)]
    most = 0.05 + ERRORS * math.sqrt(0.05 * 0.95 / alarms[0].num_sets)
    assert [(cell.number, cell.case) for cell in alarms if cell.rate > most] == []
    assert np.mean([cell.rate for cell in alarms]) < 0.05

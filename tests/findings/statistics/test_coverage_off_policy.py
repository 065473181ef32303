"""Off-policy intervals that are shown hold the truth; they are shown where they should be, not where π is too far."""

import math

import numpy as np
import pytest

from benchmarks.coverage import off_policy
from benchmarks.coverage.cells import Alarms, Coverage


def test_the_part_yields_coverage_and_how_often_an_interval_was_shown(monkeypatch):
    shapes = [("log-normal", share, off_policy.log_normal(share)) for share in (0.03, 0.6)]
    monkeypatch.setattr(off_policy, "shapes", lambda: iter(shapes))
    monkeypatch.setattr(off_policy, "NUM_RESAMPLES", 100)
    cells = list(off_policy.cells(2, np.random.default_rng(0)))
    assert {type(cell) for cell in cells} == {Coverage, Alarms}
    assert all(0 <= cell.known <= 1 for cell in cells if isinstance(cell, Coverage))


@pytest.mark.parametrize("shape", ["log-normal", "5 tokens", "100 tokens", "20 even tokens", "prompts differ"])
def test_the_weights_are_a_policys_and_have_the_ess_they_say(shape):
    draw = next(draw for name, share, draw in off_policy.shapes() if (name, share) == (shape, 0.6))
    w = np.exp(draw(np.random.default_rng(0), (300_000, 1), False))
    assert w.mean() == pytest.approx(1.0, abs=0.01)
    assert 1 / (w**2).mean() == pytest.approx(0.6, abs=0.03)
    # Draws of π are those of μ weighted by w: the mean of a bounded function is the same.
    of_pi = draw(np.random.default_rng(1), (300_000, 1), True)
    assert np.exp(-np.abs(of_pi)).mean() == pytest.approx((w * np.exp(-np.abs(np.log(w)))).mean(), abs=0.01)


@pytest.mark.slow
def test_intervals_hold_and_are_shown(monkeypatch):
    monkeypatch.setattr(off_policy, "NUM_RESAMPLES", 300)
    monkeypatch.setattr(off_policy, "intervals_before", lambda data: {})
    drawn = list(off_policy.outcomes(27, np.random.default_rng(1)))
    near = [each for each in drawn if each.share >= 0.3]
    for name in off_policy.QUOTED:
        shown = [(each.found[name], each.value) for each in near if each.found[name].is_known]
        held = np.mean([found.low <= value <= found.high for found, value in shown])
        # Four standard errors of the share of those shown.
        assert 0.93 - 4 * math.sqrt(0.05 * 0.95 / len(shown)) < held < 0.99, name
    of_two_values = [each for each in near if each.rewards.startswith("rate")]
    large = [each.found["snips"].is_known for each in of_two_values if each.size[0] * each.size[1] >= 200]
    assert np.mean(large) > 0.9
    far = [each for each in drawn if 0 < each.share < off_policy.FAR]
    assert np.mean(["snips" in each.found and each.found["snips"].is_known for each in far]) < 0.1

import pytest

from klimb.training.metrics import WeightsWatch

FRESH = {"ess_token": 1.0, "w_max": 1.00001, "w_p01": 0.99999, "num_optimizer_steps": 1.0}
STEPS = {**FRESH, "num_optimizer_steps": 2.0}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture):
    """How often a text was logged."""
    return lambda text: sum(text in record.message for record in caplog.records)


def test_a_trust_region_that_could_act_and_never_does_is_said_once(said):
    watch = WeightsWatch()
    for number in range(8):
        watch.observe(STEPS, has_old_samples=False)
        assert said("the trust region is inert") == (number >= 2)


def test_weights_of_1_are_no_news_where_nothing_could_have_moved_them(said):
    watch = WeightsWatch()
    for _ in range(5):
        watch.observe(FRESH, has_old_samples=False)
    assert said("inert") == 0
    for _ in range(3):
        watch.observe(FRESH, has_old_samples=True)
    assert said("inert") == 1


def test_a_step_that_moved_starts_the_count_again(said):
    watch = WeightsWatch()
    for metrics in (STEPS, STEPS, {**STEPS, "w_max": 1.2}, STEPS, STEPS, {**STEPS, "w_p01": 0.9}):
        watch.observe(metrics, has_old_samples=False)
    assert said("inert") == 0


def test_data_that_is_too_far_is_named_by_its_source_once(said):
    watch = WeightsWatch()
    moved = {**STEPS, "w_max": 9.0, "ess_token": 0.6, "replay/ess_token": 0.29, "rollout/ess_token": 0.9}
    watch.observe(moved, has_old_samples=True)
    watch.observe(moved, has_old_samples=True)
    assert said("replay/ess_token is 0.29") == 1
    assert said("too far for ratios") == 1


def test_without_a_ratio_nothing_is_said(said):
    watch = WeightsWatch()
    for _ in range(5):
        watch.observe({"num_optimizer_steps": 4.0, "log_pi_mean": -1.0}, has_old_samples=True)
    assert said("") == 0

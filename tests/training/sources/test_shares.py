import jaxtyping
import pytest

from klimb.training import LoopSettings, ReplaySettings, RolloutSettings, SourceSettings


def test_shares_become_whole_groups_by_largest_remainder():
    settings = SourceSettings(replay=0.3, log=0.2)
    assert settings.num_groups(16) == {"rollout": 8, "replay": 5, "log": 3, "feedback": 0}  # 8, 4.8, 3.2
    assert settings.num_groups(1) == {"rollout": 1, "replay": 0, "log": 0, "feedback": 0}
    assert sum(settings.num_groups(7).values()) == 7


def test_equal_remainders_go_to_the_earlier_source():
    settings = SourceSettings(rollout=0.25, replay=0.25, log=0.25, feedback=0.25)
    assert settings.num_groups(6) == {"rollout": 2, "replay": 2, "log": 1, "feedback": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout": 0.5}, "add up to 0.5, expected 1"),
        ({"rollout": 1.5, "log": -0.5}, "each from 0 to 1"),
        ({"replay": 0.5, "log": 0.5}, "nothing to replay"),
    ],
)
def test_shares_that_make_no_sense_are_refused(changes, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its own message, not the type checker's
    with pytest.raises(ValueError, match=message):
        SourceSettings(**changes)


def test_rollouts_are_what_the_other_shares_leave():
    assert SourceSettings(replay=0.25, log=0.5).rollout == 0.25
    assert SourceSettings(log=1.0).rollout == 0.0


def test_a_lag_is_of_rollouts_alone():
    with pytest.raises(ValueError, match="lag must be >= 0"):
        RolloutSettings(lag=-1)
    with pytest.raises(ValueError, match=r"sampling\.lag delays every batch as a whole"):
        LoopSettings(sampling=RolloutSettings(lag=1), sources=SourceSettings(log=0.5))


@pytest.mark.parametrize("changes", [{"max_age": 0}, {"max_groups": 0}, {"rule": "oldest"}])
def test_replay_settings_out_of_range_are_refused(changes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError):
        ReplaySettings(**changes)

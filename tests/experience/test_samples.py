from dataclasses import replace

import pytest

from klimb.experience import Sample, SamplingSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature must be finite and >= 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be finite"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_k": -1}, "top_k must be >= 0, got -1"),
        ({"min_p": 1.0}, r"min_p must be in \[0, 1\), got 1.0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
    ],
)
def test_sampling_settings_out_of_range_are_named(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**changes)


@pytest.mark.parametrize("changes", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"temperature": 0.0}])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_policy_is_drawn_from_only_at_its_own_temperature_with_nothing_cut_off(changes: dict, temperature: float):
    drawn = SamplingSettings(temperature=temperature)
    assert drawn.is_untruncated and drawn.draws_at(temperature)
    assert not drawn.draws_at(1.3)
    cut = replace(drawn, **changes)
    assert not cut.is_untruncated and not cut.draws_at(temperature) and not cut.draws_at(0.0)


def test_a_point_mass_is_compared_with_at_temperature_one():
    assert [SamplingSettings(temperature=t).scoring_temperature for t in (0.0, 0.7, 1.0)] == [1.0, 0.7, 1.0]


def sample(**changes) -> Sample:
    fields = {
        "sample_id": "a",
        "group_id": "g",
        "prompt": (),
        "prompt_ids": (1,),
        "response": "",
        "response_ids": (1, 2),
    }
    return Sample(**(fields | {"finish_reason": "stop"} | changes))


def test_log_mu_never_travels_without_its_provenance_nor_the_other_way():
    with pytest.raises(ValueError, match="sample a: log_mu is given but its provenance is 'absent'"):
        sample(log_mu=(-1.0, -1.0))
    with pytest.raises(ValueError, match="sample a: log_mu is absent but its provenance is 'sampler'"):
        sample(log_mu_provenance="sampler")


@pytest.mark.parametrize("name", ["log_mu", "log_ref"])
def test_one_log_probability_a_token(name: str):
    with pytest.raises(ValueError, match=f"sample a: {name} has 1 values for 2 response tokens"):
        sample(**{name: (-1.0,), "log_mu_provenance": "sampler" if name == "log_mu" else "absent"})

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
        ({"min_new_tokens": -1}, "min_new_tokens must be in 0 to max_new_tokens = 64, got -1"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens must be in 0 to max_new_tokens = 8, got 9"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty must be in \[0.01, 100\], got 0.0; 1 changes nothing"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be in"),
        ({"stop": ("",)}, "a stop string must have 1 to 200 characters, got 0"),
        ({"stop": ("a" * 201,)}, "a stop string must have 1 to 200 characters, got 201"),
        ({"stop": ("a",) * 17}, "stop must hold at most 16 texts, got 17"),
        ({"stop": ("a\N{REPLACEMENT CHARACTER}",)}, "holds the replacement character"),
    ],
)
def test_sampling_settings_out_of_range_are_named(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**changes)


def test_one_stop_string_for_many_is_refused(without_shape_checks):
    with pytest.raises(ValueError, match=r"stop must be a tuple of texts, got '</answer>'; write \('</answer>',\)"):
        SamplingSettings(stop="</answer>")  # pyright: ignore[reportArgumentType]


def test_a_repetition_penalty_cuts_nothing_off_and_draws_from_another_policy():
    drawn = SamplingSettings(repetition_penalty=1.2)
    assert drawn.is_untruncated and not drawn.draws_at(1.0)


def test_stop_strings_change_no_probability():
    assert SamplingSettings(stop=("</answer>",)).draws_at(1.0)


@pytest.mark.parametrize(
    "changes", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"temperature": 0.0}, {"min_new_tokens": 1}]
)
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

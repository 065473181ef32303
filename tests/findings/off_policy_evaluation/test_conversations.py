"""Estimates of conversations: the ratio is over what was drawn; a turn alone is no conversation."""

from dataclasses import replace

import numpy as np
import pytest

from klimb.experience.samples import Sample, Turn
from klimb.findings.off_policy_evaluation import logged_data, reason_against

TALK = Sample(
    sample_id="t",
    group_id="g",
    prompt=({"role": "user", "content": "?"},),
    prompt_ids=(1,),
    response="a\n\nb",
    response_ids=(5, 90, 91, 6, 7),
    finish_reason="stop",
    reward=1.0,
    log_mu=(-1.0, -2.0, -3.0),
    log_mu_provenance="sampler",
    turns=(
        Turn(role="assistant", text="a", num_tokens=1),
        Turn(role="tool", text="r", num_tokens=2),
        Turn(role="assistant", text="b", num_tokens=2),
    ),
)


def test_the_weight_is_the_ratio_of_the_drawn_tokens():
    data = logged_data([TALK], [(-0.5, -2.5, -1.0)])
    assert data.log_w.tolist() == [pytest.approx(0.5 - 0.5 + 2.0)]
    assert data.num_tokens.tolist() == [3.0]


def test_scores_of_all_tokens_are_left_out_with_their_reason():
    with pytest.raises(ValueError, match="log_pi of another length"):
        logged_data([TALK], [(-0.5,) * 5])


def test_a_turn_of_a_conversation_alone_is_left_out():
    part = replace(TALK, sample_id="part", episode="e")
    assert reason_against(part) and not reason_against(TALK)
    data = logged_data([TALK, part], [(-1.0, -2.0, -3.0)] * 2)
    assert data.num_samples == 1
    assert any("1 of 2 samples are left out: that are one turn" in note for note in data.notes)


def test_a_conversation_that_a_limit_ended_is_cut():
    cut = replace(TALK, sample_id="cut", metadata={"ended": "max_turns"})
    assert logged_data([TALK, cut], [(-1.0,) * 3] * 2).is_cut.tolist() == [False, True]
    assert np.all(logged_data([TALK], [(-1.0,) * 3]).is_cut == [False])

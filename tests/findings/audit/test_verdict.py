"""From data to verdict: the five cases in miniature, the order of the rules, and what the reader gets."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.findings.audit.fabricated import drawn, made

from klimb.experience.samples import Sample, SamplingSettings
from klimb.experience.segments import write_samples
from klimb.experience.store import open_store
from klimb.findings.audit import AuditReport, Thresholds, audit
from klimb.findings.statistics import mean_reward, share_ends


def moved(sample: Sample) -> Sample:
    return replace(sample, log_mu=(0.0, *sample.log_mu[:-1]))


def without_numbers(sample: Sample) -> Sample:
    return replace(sample, prompt_ids=(), response_ids=(), log_mu=None, log_mu_provenance="absent", reward=None)


def cut_off(sample: Sample) -> Sample:
    return replace(sample, sampling=SamplingSettings(top_p=0.5))


def without_log_mu(sample: Sample) -> Sample:
    return replace(sample, log_mu=None, log_mu_provenance="absent")


def with_equal_groups(samples: list[Sample], share: float) -> list[Sample]:
    groups = list(dict.fromkeys(sample.group_id for sample in samples))
    equal = dict.fromkeys(groups[: round(share * len(groups))])
    return [replace(s, reward=float(int(s.group_id[1:]) % 2)) if s.group_id in equal else s for s in samples]


def audited(change=lambda sample: sample, **options: object) -> AuditReport:
    samples, log_pi = drawn()
    return audit([change(sample) for sample in samples], log_pi=log_pi, **options)


def test_healthy_data_is_for_rl_with_correction():
    verdict = audited().verdict
    assert (verdict.kind, verdict.decided_by) == ("rl-with-correction", "effective share of token weights")
    assert verdict.recipes == ("topr", "rpg-reinforce-urkl")
    assert verdict.interval_half_width < 0.1


def test_moved_log_probabilities_leave_the_rewards():
    verdict = audited(moved).verdict
    assert (verdict.kind, verdict.decided_by) == ("kto-or-dro", "log-probabilities moved by one place")
    assert verdict.recipes == ("dro", "asymre", "kto")


def test_texts_alone_are_for_cloning():
    samples, _ = drawn()
    verdict = audit([without_numbers(sample) for sample in samples]).verdict
    assert (verdict.kind, verdict.decided_by) == ("behaviour-cloning", "samples with a reward")
    assert verdict.interval_half_width is None


def test_groups_without_a_difference_ask_for_more():
    samples, log_pi = drawn()
    verdict = audit(with_equal_groups(samples, 0.95), log_pi=log_pi).verdict
    assert (verdict.kind, verdict.decided_by) == ("collect-more", "groups without a difference")
    assert "50 %" in verdict.reason


def test_cut_off_sampling_is_for_losses_without_ratios():
    verdict = audited(cut_off).verdict
    assert (verdict.kind, verdict.decided_by) == ("ratio-free-rl", "truncated sampling")
    assert verdict.recipes[0] == "topr"


def test_one_reward_for_all_is_for_cloning():
    verdict = audited(lambda sample: replace(sample, reward=0.0)).verdict
    assert (verdict.kind, verdict.decided_by) == ("behaviour-cloning", "different rewards")
    assert "do not clone" in verdict.reason


def test_an_interval_wider_than_the_hoped_gain_asks_for_more():
    verdict = audited(
        lambda s: replace(s, reward=float(int(s.group_id[1:]) % 2 == (s.sample_id[-1] > "0"))),
        thresholds=Thresholds(max_zero_variance=1.0, hoped_gain=0.01),
    ).verdict
    assert (verdict.kind, verdict.decided_by) == ("collect-more", "expected interval")


def test_the_number_of_prompts_to_collect_is_whole_and_enough():
    samples, log_pi = drawn(num_prompts=20)
    coins = [replace(s, reward=float(int(s.group_id[1:]) % 2)) for s in samples]
    loose = Thresholds(max_zero_variance=1.0)
    verdict = audit(coins, log_pi=log_pi, thresholds=loose).verdict
    assert (verdict.kind, verdict.decided_by) == ("collect-more", "expected interval")
    rewards = np.array([s.reward for s in coins])
    needed = mean_reward(rewards, np.arange(160) // 8, unit="prompt").units_for(0.1)
    assert f"{needed} different prompts in all, {needed / 20:.1f} times as many" in verdict.next_action
    assert "4 in 5" in verdict.next_action
    low, high = share_ends(0.5, needed)
    assert (high - low) / 2 <= 0.1


def test_three_prompts_have_no_interval_and_are_told_how_many_are_enough_at_any_rate():
    samples, log_pi = drawn(num_prompts=3)
    verdict = audit(samples, log_pi=log_pi).verdict
    assert (verdict.kind, verdict.decided_by) == ("collect-more", "effective prompts")
    assert verdict.interval_half_width is None
    assert "3 prompts" in verdict.interval_note
    assert "16 different prompts" in verdict.next_action
    assert "at any pass rate" in verdict.next_action
    few = audit(samples, log_pi=log_pi, thresholds=Thresholds(min_effective_prompts=1)).verdict
    assert few.kind == "rl-with-correction"
    assert "cannot be said" in few.reason


def test_few_prompts_ask_for_more():
    samples, log_pi = drawn(num_prompts=8)
    verdict = audit(samples, log_pi=log_pi, thresholds=Thresholds(hoped_gain=0.2)).verdict
    assert (verdict.kind, verdict.decided_by) == ("collect-more", "effective prompts")
    enough = Thresholds(hoped_gain=0.2, min_effective_prompts=8)
    assert audit(samples, log_pi=log_pi, thresholds=enough).verdict.kind == "rl-with-correction"


def far(log_pi, gap: float):
    return [tuple(v + (gap if t % 3 == 0 else -gap / 2) for t, v in enumerate(row)) for row in log_pi]


def test_a_distant_policy_is_for_losses_without_ratios():
    samples, log_pi = drawn()
    verdict = audit(samples, log_pi=far(log_pi, 3.0)).verdict
    assert verdict.kind == "ratio-free-rl"
    assert verdict.decided_by == "effective share of token weights" or verdict.decided_by == "tokens outside the band"


def test_the_masked_share_alone_can_decide():
    samples, log_pi = drawn()
    # Every third token weighs 2.1: the token ESS stays high.
    near = [tuple(v + (math.log(2.1) if t % 3 == 0 else 0.0) for t, v in enumerate(row)) for row in log_pi]
    verdict = audit(samples, log_pi=near).verdict
    assert (verdict.kind, verdict.decided_by) == ("ratio-free-rl", "tokens outside the band")


def test_a_logging_model_that_disagrees_takes_the_log_probabilities_away():
    samples, log_pi = drawn(noise=0.4)
    assert audit(samples, log_pi=log_pi).verdict.kind == "rl-with-correction"
    verdict = audit(samples, log_pi=log_pi, is_logging_model=True).verdict
    assert (verdict.kind, verdict.decided_by) == ("kto-or-dro", "k3 against the logging model")


def test_a_small_share_without_log_probabilities_does_not_decide():
    samples, log_pi = drawn()
    few = [without_log_mu(s) if row % 25 == 0 else s for row, s in enumerate(samples)]
    many = [without_log_mu(s) if row % 10 == 0 else s for row, s in enumerate(samples)]
    assert audit(few, log_pi=log_pi).verdict.kind == "rl-with-correction"
    verdict = audit(many, log_pi=log_pi).verdict
    assert (verdict.kind, verdict.decided_by) == ("kto-or-dro", "log-probabilities absent or estimated")
    assert "The others have" in verdict.reason


@pytest.mark.parametrize(("change", "num_left"), [(without_log_mu, 96), (cut_off, 96)])
def test_the_part_without_the_fault_can_be_selected_as_the_verdict_says(change, num_left: int, tmp_path: Path):
    samples, log_pi = drawn()
    half = [change(s) if row % 2 else s for row, s in enumerate(samples)]
    action = audit(half, log_pi=log_pi).verdict.next_action
    write_samples(tmp_path / "half.parquet", half)
    condition = action.partition('--where "')[2].rstrip('"')
    assert open_store(tmp_path / "half.parquet").count(condition) == num_left


def test_rewards_are_asked_before_signal_and_signal_before_log_probabilities():
    samples, _ = drawn()
    all_wrong = [replace(without_log_mu(cut_off(sample)), reward=None) for sample in samples]
    assert audit(all_wrong).verdict.kind == "behaviour-cloning"
    equal = with_equal_groups([without_log_mu(cut_off(sample)) for sample in samples], 0.95)
    assert audit(equal).verdict.kind == "collect-more"
    assert audit([without_log_mu(cut_off(sample)) for sample in samples]).verdict.kind == "kto-or-dro"


def test_single_thumbs_are_for_kto_and_odd_groups_do_not_decide():
    samples, _ = drawn(num_prompts=400, num_samples=1)
    thumbs = [replace(without_log_mu(s), reward=float(n % 2)) for n, s in enumerate(samples)]
    pair = [replace(s, sample_id=f"again{n}") for n, s in enumerate(thumbs[:3])]  # three groups of equal rewards
    verdict = audit([*thumbs, *pair]).verdict
    assert verdict.kind == "kto-or-dro"
    assert verdict.recipes[0] == "kto"


def test_graded_rewards_are_not_for_kto():
    samples, _ = drawn()
    graded = [replace(without_log_mu(s), reward=(s.reward or 0.0) + 0.01 * (n % 3)) for n, s in enumerate(samples)]
    assert "kto" not in audit(graded).verdict.recipes


def test_without_a_model_the_reason_says_that_overlap_was_not_measured():
    samples, _ = drawn()
    verdict = audit(samples).verdict
    assert verdict.kind == "rl-with-correction"
    assert "was not measured" in verdict.reason
    assert "--model" in verdict.next_action


@pytest.mark.parametrize("change", [lambda s: s, moved, without_numbers, cut_off, without_log_mu])
def test_the_deciding_finding_is_in_the_report_and_three_rows_show_it(change):
    samples, log_pi = drawn()
    changed = [change(sample) for sample in samples]
    scores = [row if s.response_ids else None for s, row in zip(changed, log_pi, strict=True)]
    report = audit(changed, log_pi=scores)
    names = [finding.name for block in report.blocks for finding in block.findings]
    assert report.verdict.decided_by in names
    assert len(set(names)) == len(names)
    assert len({example.sample_id for example in report.verdict.examples}) == 3


def test_examples_show_tokens_with_both_log_probabilities():
    samples, log_pi = drawn()
    changed = [moved(s) for s in samples]
    example = audit(changed, log_pi=log_pi, decode=lambda ids: "" if ids == (2,) else str(ids[0])).verdict.examples[0]
    row = next(n for n, s in enumerate(changed) if s.sample_id == example.sample_id)
    assert example.log_mu == changed[row].log_mu
    assert example.log_pi == log_pi[row]
    assert example.tokens[-1] == "⟨2⟩"
    assert len(example.tokens) == len(example.log_mu)


def test_examples_of_equal_groups_are_from_equal_groups():
    samples, log_pi = drawn()
    equal = with_equal_groups(samples, 0.9)
    assert all("all rewards of group" in e.note for e in audit(equal, log_pi=log_pi).verdict.examples)


def test_figures_are_well_formed():
    samples, log_pi = drawn()
    report = audit(samples, log_pi=log_pi, fresh=samples[:4], is_logging_model=True)
    figures = [figure for block in report.blocks for figure in block.figures]
    assert len(figures) >= 5
    for figure in figures:
        assert len(figure.x) == len(figure.y) + (figure.kind == "histogram")
        assert figure.kind != "bars" or len(figure.labels) == len(figure.y)
        assert all(map(math.isfinite, (*figure.x, *figure.y)))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        audit([])


def test_scores_for_other_samples_are_refused():
    with pytest.raises(ValueError, match="1 entries of log_pi for 2 samples"):
        audit([made(0), made(1)], log_pi=[None])


@pytest.mark.parametrize("field", ["hoped_gain", "token_ess_bad"])
def test_thresholds_that_are_no_numbers_are_refused(field: str):
    with pytest.raises(ValueError, match=field):
        Thresholds(**{field: math.nan})

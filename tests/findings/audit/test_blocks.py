"""What each block finds, by hand-counted data, and what it says when a piece is missing."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.findings.audit.fabricated import END, drawn, made

from klimb.experience.samples import Message, Sample, SamplingSettings
from klimb.experience.store import Store
from klimb.findings.audit import audit
from klimb.findings.audit.contamination import contamination_block, found_in_part, found_whole, word_runs
from klimb.findings.audit.coverage import COVERED, UNSEEN, coverage_block, nearest_similarity
from klimb.findings.audit.evidence import pair_up
from klimb.findings.audit.feedback import feedback_block
from klimb.findings.audit.lengths import length_block
from klimb.findings.audit.overlap import (
    MASKED,
    SAME_MODEL,
    TOKEN_ESS,
    measure_rounding,
    overlap_block,
    same_model_block,
)
from klimb.findings.audit.provenance import NO_LOG_MU, TRUNCATED, provenance_block
from klimb.findings.audit.redundancy import EFFECTIVE_PROMPTS, jaccard, near_duplicates, redundancy_block
from klimb.findings.audit.report import Block
from klimb.findings.audit.signal import GROUPED, INTERVAL, ZERO_VARIANCE, equal_groups, signal_block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.audit.verdict import SELECTIONS
from klimb.findings.finding import Finding
from klimb.findings.statistics import share_ends, units_for_any_share

LIMITS = Thresholds()


def finding(block: Block, name: str) -> Finding:
    return next(entry for entry in block.findings if entry.name == name)


# Provenance


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(top_p=0.9),
        SamplingSettings(top_k=40),
        SamplingSettings(min_p=0.05),
        SamplingSettings(min_new_tokens=2),
        SamplingSettings(temperature=0),
    ],
)
def test_every_cut_off_counts_as_truncated(settings: SamplingSettings):
    samples = [made(0, sampling=settings), *[made(n) for n in range(1, 4)]]
    found = finding(provenance_block(samples, LIMITS), TRUNCATED)
    assert (found.number, found.status) == (0.25, "bad")


def test_a_cut_off_sample_whose_support_is_recorded_is_usable_for_ratios():
    recorded = made(0, sampling=SamplingSettings(top_p=0.9), support=((11, 4), (12,), (END, 5, 7)))
    found = finding(provenance_block([recorded, made(1)], LIMITS), TRUNCATED)
    assert (found.number, found.status) == (0.0, "good")
    assert found.evidence == "0 % of samples, 50 % with the support recorded"
    greedy = replace(recorded, sampling=SamplingSettings(temperature=0))
    assert finding(provenance_block([greedy, made(1)], LIMITS), TRUNCATED).number == 0.5


def test_the_condition_that_leaves_out_cut_off_samples_keeps_those_with_their_support(tmp_path):
    cut = SamplingSettings(top_p=0.9)
    kept = ((11, 4), (12,), (END, 5, 7))
    samples = [
        made(0),
        made(1, sampling=cut, support=kept),
        made(2, sampling=cut),
        made(3, sampling=SamplingSettings(temperature=0), support=((11,), (12,), (END,))),
    ]
    store = Store(tmp_path / "store")
    store.append(samples)
    found = {sample.sample_id for sample in store.samples(where=SELECTIONS[TRUNCATED])}
    assert found == {samples[0].sample_id, samples[1].sample_id}
    assert found == {sample.sample_id for sample in samples if not sample.lacks_support}


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"repetition_penalty": 1.3}, {"stop": ("a",)}])
def test_what_leaves_every_token_possible_cuts_nothing_off(settings: dict):
    samples = [made(0, sampling=SamplingSettings(**settings))]
    assert finding(provenance_block(samples, LIMITS), TRUNCATED).number == 0


def test_settings_that_nobody_recorded_are_unknown_not_good():
    block = provenance_block([made(sampling=None)], LIMITS)
    assert finding(block, TRUNCATED).status == "unknown"
    assert finding(block, "sampling settings").status == "unknown"


def test_estimated_log_probabilities_are_not_usable():
    samples = [made(0, log_mu_provenance="estimated"), made(1), made(2, log_mu=None), made(3)]
    assert finding(provenance_block(samples, LIMITS), NO_LOG_MU).number == 0.5


def test_two_tokenizers_are_a_warning():
    assert finding(provenance_block([made(0), made(1, tokenizer="u")], LIMITS), "tokenizer").status == "warning"


# Overlap


def test_overlap_by_hand():
    # Weights 1, 1, 4, 1: token ESS 7²/(4·19); one of four outside [0.5, 2].
    pairs = pair_up(
        [made(0, ids=(5, 2), log_mu=(-1.0, -1.0)), made(1, ids=(5, 2), log_mu=(-2.0, -1.0))],
        [(-1.0, -1.0), (-2.0 + math.log(4), -1.0)],
    )
    block = overlap_block(pairs, LIMITS)
    assert finding(block, TOKEN_ESS).number == pytest.approx(49 / 76)
    assert finding(block, MASKED).number == 0.25
    assert finding(block, "tokens above the cap").number == 0.25
    # Sequences weigh 1 and 4, length-normalised 1 and 2.
    assert finding(block, "effective share of sequence weights").number == pytest.approx(25 / 34)
    assert finding(block, "effective share of length-normalised weights").number == pytest.approx(9 / 10)
    assert finding(block, "k1").number == pytest.approx(-math.log(4) / 4)
    assert finding(block, "χ² of token weights").number == pytest.approx(19 / 4 - 1)
    assert "2.0 tokens" in finding(block, "effective share of sequence weights").evidence


def test_both_ends_of_the_band_are_masked():
    pairs = pair_up([made(log_mu=(-1.0, -1.0, -1.0))], [(-1 + math.log(2.1), -1 - math.log(2.1), -1 + math.log(1.9))])
    assert finding(overlap_block(pairs, LIMITS), MASKED).number == pytest.approx(2 / 3)


def test_the_same_policy_overlaps_wholly():
    pairs = pair_up(*drawn(noise=0.0))
    assert finding(overlap_block(pairs, LIMITS), TOKEN_ESS).number == 1.0


def test_overlap_without_a_model_is_unknown():
    assert finding(overlap_block(None, LIMITS), TOKEN_ESS).status == "unknown"


def test_overlap_ignores_estimated_log_probabilities():
    pairs = pair_up([made(log_mu_provenance="estimated")], [(-1.0, -1.0, -1.0)])
    assert finding(overlap_block(pairs, LIMITS), TOKEN_ESS).status == "unknown"


@pytest.mark.parametrize(("noise", "status"), [(0.005, "good"), (0.1, "warning"), (0.5, "bad")])
def test_same_model_statuses(noise: float, status: str):
    # k3 of normal noise σ is about σ²/2: 1e-5, 5e-3, 0.13
    assert finding(same_model_block(pair_up(*drawn(noise=noise)), LIMITS), SAME_MODEL).status == status


def test_share_of_tokens_off_by_hand():
    pairs = pair_up([made(log_mu=(-1.0, -1.0, -1.0))], [(-1 + math.log(1.06), -1 + math.log(1.04), -1.0)])
    block = same_model_block(pairs, LIMITS)
    assert finding(block, "tokens off").number == pytest.approx(1 / 3)
    gap = (math.log(1.06) + math.log(1.04)) / 3
    assert finding(block, "mean |Δ| against the logging model").number == pytest.approx(gap)


def test_what_the_models_own_rounding_makes_is_taken_off_before_it_is_judged():
    samples, log_pi = drawn(noise=0.15)
    pairs = pair_up(samples, log_pi)
    assert finding(same_model_block(pairs, LIMITS), SAME_MODEL).status == "warning"
    assert finding(same_model_block(pairs, LIMITS), "mean |Δ| against the logging model").status == "bad"
    # Two scores of the model by itself, as far apart as that.
    first, second = [s.log_mu or () for s in drawn(noise=0.15, seed=1)[0]], drawn(noise=0.15, seed=1)[1]
    rounding = measure_rounding(first, second, LIMITS, name="bfloat16 against float32")
    assert rounding is not None and rounding.gap == pytest.approx(0.12, abs=0.02)
    block = same_model_block(pairs, LIMITS, rounding=rounding)
    assert {each.status for each in block.findings} <= {"good"}
    assert "bfloat16 against float32" in block.notes[1]
    # Another model is still another one.
    far = same_model_block(pair_up(*drawn(noise=0.5)), LIMITS, rounding=rounding)
    assert finding(far, SAME_MODEL).status == "bad"


def test_the_distance_of_two_scores_by_hand():
    found = measure_rounding([(-1.0, -2.0)], [(-1.1, -2.0)], LIMITS, name="a against b")
    assert found is not None and found.num_tokens == 2
    assert found.gap == pytest.approx(0.05)
    assert found.k3 == pytest.approx((math.exp(-0.1) - 1 + 0.1) / 2)
    assert found.off == 0.5
    assert measure_rounding([], [], LIMITS, name="") is None


def test_the_same_model_check_leaves_out_altered_distributions():
    samples = [made(0), made(1, sampling=SamplingSettings(top_p=0.5)), made(2, sampling=None)]
    assert pair_up(samples, [(-1.0, -1.0, -1.0)] * 3, only_at=1.0).rows == (0, 2)


# Coverage


def test_the_nearest_logged_answer_decides():
    logged = [made(0, response="the answer is four"), made(1, response="it is five")]
    fresh = [
        made(2, response="The answer  is FOUR"),
        made(3, response="the answer is fo"),
        made(4, response="zzz"),
        made(5, prompt="never asked", response="it is five"),
    ]
    # 16 of 18 and 16 characters match: 2·16/34
    assert nearest_similarity(logged, fresh) == [1.0, pytest.approx(32 / 34), 0.0, None]
    block = coverage_block(logged, fresh, (), LIMITS)
    assert finding(block, COVERED).number == pytest.approx(2 / 3)
    assert sum(block.figures[0].y) == 3


@pytest.mark.parametrize(
    ("num_prompts", "every", "status"), [(4, 2, "unknown"), (40, 2, "warning"), (40, 8, "bad"), (40, 1, "good")]
)
def test_few_fresh_answers_do_not_tell_that_the_data_lacks_them(num_prompts: int, every: int, status: str):
    logged = [made(n, prompt=f"p{n}") for n in range(num_prompts)]
    fresh = [made(n, prompt=f"p{n}", response="an answer" if n % every == 0 else "zzz") for n in range(num_prompts)]
    assert finding(coverage_block(logged, fresh, (), LIMITS), COVERED).status == status


def test_coverage_without_fresh_answers_is_unknown():
    assert finding(coverage_block([made()], None, (), LIMITS), COVERED).status == "unknown"


def test_unseen_evaluation_prompts_are_counted():
    block = coverage_block([made(prompt="What is 1+1?")], None, ("what is  1+1?", "what is 2+2?"), LIMITS)
    assert finding(block, UNSEEN).number == 0.5


# Signal


def test_zero_variance_looks_at_groups_of_two_or_more():
    rewards = {"a": (1.0, 1.0), "b": (0.0, 1.0), "c": (1.0,), "d": (0.3, 0.3, 0.3)}
    samples = [made(n, group=g, reward=r) for n, (g, r) in enumerate((g, r) for g, rs in rewards.items() for r in rs)]
    block = signal_block(samples, LIMITS)
    assert finding(block, ZERO_VARIANCE).number == pytest.approx(2 / 3)
    assert finding(block, GROUPED).number == pytest.approx(7 / 8)
    assert equal_groups(samples) == ["a", "d"]


def test_unrated_samples_are_not_counted_as_zero():
    samples = [made(0, reward=None), made(1, reward=1.0), made(2, reward=1.0)]
    block = signal_block(samples, LIMITS)
    assert finding(block, "mean reward").number == 1.0
    assert finding(block, "samples with a reward").number == pytest.approx(2 / 3)


def test_rewards_that_are_no_numbers_are_left_out_and_said():
    samples = [made(0, reward=math.nan), made(1, reward=math.inf), made(2, reward=0.5), made(3, reward=0.0)]
    found = finding(signal_block(samples, LIMITS), "samples with a reward")
    assert found.number == 0.5
    assert "2 rewards left out" in found.title


def test_single_responses_have_no_zero_variance_share():
    samples = [made(n, group=f"g{n}", reward=float(n % 2)) for n in range(10)]
    assert finding(signal_block(samples, LIMITS), ZERO_VARIANCE).status == "unknown"


def test_the_same_prompt_in_two_groups_is_one_prompt_for_the_interval():
    def interval(groups: int) -> float | None:
        rows = [made(n, group=f"g{n % groups}", prompt=f"p{n % 8}  ", reward=float(n % 8 < 5)) for n in range(32)]
        return finding(signal_block(rows, LIMITS), INTERVAL).number

    # 8 prompts of one mean each are 8 answers, whatever their groups are called.
    low, high = share_ends(5 / 8, 8)
    assert interval(8) == interval(16) == pytest.approx((high - low) / 2, rel=0.1)


def test_too_few_prompts_have_no_interval_with_the_reason_and_how_many_would_do():
    found = finding(
        signal_block([made(n, prompt=f"p{n % 4}", reward=float(n % 2)) for n in range(64)], LIMITS), INTERVAL
    )
    assert (found.number, found.status) == (None, "unknown")
    assert "4 prompts" in found.title
    assert f"{units_for_any_share(0.1)} different prompts" in found.advice


@pytest.mark.parametrize(("num_prompts", "status"), [(10, "unknown"), (100, "warning")])
def test_a_mean_outside_its_limits_is_a_warning_if_it_is_so_by_more_than_chance(num_prompts: int, status: str):
    samples = [made(n, prompt=f"p{n}", group=f"g{n}", reward=float(n % 5 == 0)) for n in range(num_prompts)]
    assert finding(signal_block(samples, LIMITS), "mean reward").status == status


def test_a_log_read_twice_under_other_names_is_as_uncertain_as_once():
    once = [made(n, prompt=f"p{n}", group=f"g{n}", reward=float(n % 3 == 0)) for n in range(30)]
    again = [replace(sample, sample_id=f"again{n}", group_id=f"again{n}") for n, sample in enumerate(once[:10])]
    assert finding(signal_block([*once, *again], LIMITS), INTERVAL) == finding(signal_block(once, LIMITS), INTERVAL)


def test_pass_rate_histogram_counts_prompts():
    samples = [made(n, prompt=f"p{n // 2}", reward=float(n % 2 or n < 4)) for n in range(8)]
    figure = signal_block(samples, LIMITS).figures[0]
    assert sum(figure.y) == 4
    assert (figure.y[-1], figure.y[5]) == (2.0, 2.0)


# Redundancy


def test_jaccard_by_hand():
    # abcdef: abcde bcdef; abcdeg: abcde bcdeg
    assert jaccard("abcdef", "abcdeg") == pytest.approx(1 / 3)
    assert jaccard("abc", "abc") == 1.0
    assert jaccard("abc", "abd") == 0.0
    assert jaccard("", "") == 1.0


def test_near_duplicates_are_found_and_others_left_alone():
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("abcdefghij "), 400)) for _ in range(300)]
    edited = [text[:200] + "#" + text[201:] for text in texts[:40]]  # one character: 5 of 396 5-grams
    found = near_duplicates([*texts, *edited], similarity=0.8)
    assert found == list(range(300, 340))


def test_candidates_below_the_similarity_are_no_duplicates():
    first = "the quick brown fox jumps over the lazy dog and runs away"
    second = first.replace("quick brown", "slow red").replace("lazy", "angry")
    assert jaccard(first, second) < 0.8
    assert near_duplicates([first, second], similarity=0.8) == []


def test_characters_outside_unicode_planes_do_not_stop_it():
    assert near_duplicates(["\ud800 broken", "\ud800 broken", "🙂"], similarity=0.8) == [1]


def test_effective_prompts_and_repeated_rows_by_hand():
    samples = [made(n, prompt="A  b", response="x") for n in range(3)] + [made(3, prompt="a B", response="y")]
    samples += [made(4, prompt="other")]
    block = redundancy_block(samples, LIMITS)
    # 4 and 1 rows: exp(−0.8·log 0.8 − 0.2·log 0.2)
    assert finding(block, EFFECTIVE_PROMPTS).number == pytest.approx(5 / 4**0.8)
    assert finding(block, "repeated rows").number == pytest.approx(2 / 5)


def test_the_most_active_hundredth_of_users():
    samples = [made(n, metadata={"user": "busy" if n < 100 else f"u{n}"}) for n in range(299)]
    name = "rows of the most active 1 % of users"
    found = finding(redundancy_block(samples, LIMITS), name)
    # 200 users, so 2 of them: 101 of 299 rows
    assert found.number == pytest.approx(101 / 299)
    assert finding(redundancy_block([made()], LIMITS), name).status == "unknown"


# Contamination

LONG = "Natalia sold clips to forty eight of her friends in April and then half as many in May"


def test_a_prompt_in_the_data_is_found_whatever_its_case_and_spaces():
    logged = [made(prompt="what IS 3+4?")]
    assert found_whole(logged, ["What is  3+4?", "What is 4+3?"]) == [0]


def test_the_users_message_is_found_behind_a_system_message():
    prompt = (Message(role="system", content="Be brief."), Message(role="user", content="What is 3+4?"))
    assert found_whole([replace(made(), prompt=prompt)], ["What is 3+4?"]) == [0]


def test_eight_shared_words_are_found_in_prompts_and_responses():
    quoted = "I recall: sold clips to forty eight of her friends once"
    assert found_in_part([made(response=quoted)], [LONG]) == ([0], 1)
    assert found_in_part([made(prompt=quoted)], [LONG]) == ([0], 1)


def test_seven_shared_words_are_not():
    assert found_in_part([made(response="sold clips to forty eight of her dogs")], [LONG]) == ([], 1)


def test_short_prompts_can_only_be_found_whole():
    assert word_runs("one two three four five six seven") == set()
    assert len(word_runs("one two three four five six seven eight nine")) == 2
    block = contamination_block([made(prompt="What is 1+1?")], ["What is 2+2?"])
    assert [entry.status for entry in block.findings] == ["good", "unknown"]


def test_a_template_of_the_evaluation_is_no_contamination():
    wording = "Please answer the following question with one number and nothing else: {}"
    prompts = [wording.format(n) for n in range(20)]
    assert found_in_part([made(prompt=wording.format("apples"))], prompts)[0] == []


def test_without_evaluation_prompts_contamination_is_unknown():
    assert {entry.status for entry in contamination_block([made()], ()).findings} == {"unknown"}


# Length


def test_rewarded_length_is_seen_by_both_correlations():
    samples = [made(n, ids=(9,) * (n + 1), log_mu=(-1.0,) * (n + 1), reward=float(n) ** 3) for n in range(20)]
    block = length_block(samples, LIMITS)
    assert finding(block, "rank correlation of reward and length").number == pytest.approx(1.0)
    lengths = np.arange(1.0, 21.0)
    expected = np.corrcoef(lengths, (lengths - 1) ** 3)[0, 1]
    assert finding(block, "correlation of reward and length").number == pytest.approx(expected)
    assert list(block.figures[0].y) == sorted(block.figures[0].y)


def of_length(length: int, **others: object) -> Sample:
    return made(ids=(9,) * length, log_mu=(-1.0,) * length, **others)


def test_a_correlation_of_few_prompts_is_no_claim_and_that_of_many_is_one():
    def status(num_prompts: int, copies: int = 1) -> str:
        generator = np.random.default_rng(3)
        lengths = generator.integers(5, 60, num_prompts)
        rewards = np.asarray(lengths + generator.normal(0.0, 30.0, num_prompts), dtype=np.float64)
        rows = [
            of_length(int(length), prompt=f"p{n}", reward=float(reward))
            for n, (length, reward) in enumerate(zip(lengths, rewards, strict=True))
        ]
        return finding(length_block(rows * copies, LIMITS), "correlation of reward and length").status

    assert status(8) == "good"
    assert status(8, copies=40) == "good"
    assert status(120) == "warning"


def test_a_correlation_over_answers_to_one_prompt_is_not_tested():
    found = finding(
        length_block([of_length(n, reward=float(n)) for n in range(3, 30)], LIMITS), "correlation of reward and length"
    )
    assert (found.number, found.status) == (pytest.approx(1.0), "unknown")
    assert "1 prompt" in found.title


def test_texts_without_ids_are_measured_in_characters():
    samples = [made(n, ids=(), log_mu=None, response="x" * n, reward=float(n)) for n in range(5)]
    block = length_block(samples, LIMITS)
    assert block.notes == ("lengths in characters",)
    assert finding(block, "correlation of reward and length").number == pytest.approx(1.0)


def test_cut_off_and_empty_responses_are_counted():
    samples = [
        made(0, finish_reason="length"),
        made(1),
        made(2, finish_reason="unknown"),
        made(3, response=" \n"),
    ]
    block = length_block(samples, LIMITS)
    assert finding(block, "responses cut off").number == pytest.approx(1 / 3)
    assert finding(block, "empty responses").number == 0.25


# Feedback


def test_label_rate_positive_share_and_weights_by_hand():
    samples = [made(n, reward=1.0 if n < 6 else 0.0 if n < 8 else None) for n in range(10)]
    block = feedback_block(samples, LIMITS)
    assert finding(block, "label rate").number == 0.8
    assert finding(block, "positive share").number == 0.75
    assert "undesirable side 3.00 times" in finding(block, "positive share").title
    assert block.notes


def test_thumbs_of_one_side_are_a_warning():
    assert finding(feedback_block([made(n) for n in range(5)], LIMITS), "positive share").status == "warning"


def rated_at(times: Sequence[float], rewards: Sequence[float], **others: Sequence[str]) -> Finding:
    """Drift of ratings of different prompts at these times."""
    prompts = others.get("prompts") or [f"p{n}" for n in range(len(times))]
    users = others.get("users") or [""] * len(times)
    samples = [
        made(n, created_at=time, reward=reward, prompt=prompt, metadata={"user": user} if user else {})
        for n, (time, reward, prompt, user) in enumerate(zip(times, rewards, prompts, users, strict=True))
    ]
    return finding(feedback_block(samples, LIMITS), "drift in time")


def test_drift_between_the_halves_of_time():
    # Stored out of order: the late ones are good.
    found = rated_at([float(1 + n) for n in reversed(range(100))], [float(n >= 50) for n in reversed(range(100))])
    assert (found.number, found.status) == (1.0, "warning")
    assert "100 prompts" in found.evidence


def test_drift_is_split_between_stamps_and_not_within():
    # Three days of 30, 40 and 30; within each the low rewards come last.
    days, sizes = [1.0, 2.0, 3.0], [30, 40, 30]
    times = [day for day, size in zip(days, sizes, strict=True) for _ in range(size)]
    rewards = [float(n < size / 2) for size in sizes for n in range(size)]
    found = rated_at(times, rewards)
    assert (found.number, found.status) == (0.0, "good")
    assert "30 ratings before and 70 after" in found.evidence


@pytest.mark.parametrize(
    ("times", "reason"), [([1.0] + [2.0] * 59, "on one side"), ([5.0] * 60, "different times"), ([0.0] * 60, "times")]
)
def test_without_two_times_there_is_no_test_of_drift_and_the_reason_is_given(times: list[float], reason: str):
    found = rated_at(times, [float(n % 2) for n in range(60)])
    assert found.status == "unknown"
    assert reason in found.title


def test_many_answers_to_few_prompts_are_no_drift():
    # Three prompts before and three after: the prompts differ, which says nothing of time.
    prompts = [f"p{n // 40}" for n in range(240)]
    found = rated_at(
        [float(1 + n) for n in range(240)], [float(n // 40 in (3, 4, 5)) for n in range(240)], prompts=prompts
    )
    assert (found.number, found.status) == (pytest.approx(1.0), "unknown")


def test_few_users_are_the_units_where_they_differ():
    # Seven users, the early three of whom rate low: not a fact about time.
    users = [f"u{n // 20}" for n in range(140)]
    found = rated_at([float(1 + n) for n in range(140)], [float(n // 20 >= 3) for n in range(140)], users=users)
    assert found.status == "unknown"
    assert "users" in found.title
    one = rated_at([float(1 + n) for n in range(140)], [float(n >= 70) for n in range(140)], users=["me"] * 140)
    assert one.status == "warning"


def test_a_rating_stored_twice_counts_once_for_drift():
    times, rewards, prompts = (
        [float(1 + n // 2) for n in range(40)],
        [float(n % 4 > 1) for n in range(40)],
        [f"p{n // 2}" for n in range(40)],
    )
    once = rated_at(times[::2], rewards[::2], prompts=prompts[::2])
    assert rated_at(times, rewards, prompts=prompts).evidence == once.evidence


def test_an_even_stream_does_not_drift():
    assert rated_at([float(1 + n) for n in range(100)], [float(n % 2) for n in range(100)]).number == 0.0


def test_one_users_share_of_the_ratings():
    samples = [made(n, metadata={"user": "a" if n < 3 else f"u{n}"}) for n in range(4)]
    assert finding(feedback_block(samples, LIMITS), "ratings of the most active user").number == 0.75


def test_without_ratings_feedback_is_unknown():
    assert feedback_block([made(reward=None)], LIMITS).findings[0].status == "unknown"


# Thresholds


def test_a_finding_with_two_thresholds_names_both():
    samples, log_pi = drawn()
    report = audit(samples, log_pi=log_pi, fresh=samples[:2], is_logging_model=True, decode=lambda ids: str(ids))
    thresholds = {each.name: each.threshold for block in report.blocks for each in block.findings}
    expected = {
        "truncated sampling": "good up to 0 %, bad above 5 %",
        "log-probabilities absent or estimated": "good up to 0 %, bad above 5 %",
        "broken log-probabilities": "good up to 0 %, bad above 5 %",
        "samples without usable log-probabilities": "good up to 0 %, bad above 5 %",
        "token ids decode to the text": "good from 100 %, bad below 99 %",
        "finished responses have their end token": "good from 100 %, bad below 99 %",
        "mean |Δ| against the logging model": "good up to 0.01, bad above 0.02",
        "k3 against the logging model": "good up to 0.001, bad above 0.015",
        "effective share of token weights": "good from 0.5, bad below 0.3",
        "Pareto k̂ of token weights": "good up to 0.5, bad above 0.7",
        "tokens outside the band": "good up to 10 %, bad above 20 %",
        "the policy's own answers look like logged ones": "good from 70 %, bad below 35 %",
        "groups without a difference": "good up to 25 %, bad above 50 %",
        "expected interval": "good up to half the hoped gain, 0.05, bad above the hoped gain, 0.1",
        "effective prompts": "good from 32, bad below 16",
    }
    assert {name: thresholds[name] for name in expected} == expected
    assert "good up to 0 %, bad above 5 % of samples" in thresholds["log-probabilities moved by one place"]


def test_uneven_rows_ask_for_more_prompts_than_even_ones():
    # 40 rows of one prompt and one of each of 19 others.
    rows = [made(n, prompt=f"question {max(n - 39, 0)}") for n in range(59)]
    counts = np.array([40.0] + [1.0] * 19) / 59
    effective = math.exp(-(counts * np.log(counts)).sum())
    found = finding(redundancy_block(rows, LIMITS), EFFECTIVE_PROMPTS)
    assert found.number == pytest.approx(effective)
    assert f"{math.ceil(16 * 20 / effective)} different prompts in all, or to 16 with as many rows each" in found.advice


@pytest.mark.parametrize(("num_prompts", "status"), [(15, "bad"), (16, "warning"), (28, "warning"), (32, "good")])
def test_the_printed_limits_are_those_that_set_the_status(num_prompts: int, status: str):
    samples, _ = drawn(num_prompts=num_prompts, num_samples=2)
    assert finding(redundancy_block(samples, LIMITS), EFFECTIVE_PROMPTS).status == status


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_rewards_up_to_the_largest_number_end_no_audit_and_no_nan_is_shown():
    samples = [made(n, prompt=f"q {n}", group=f"g {n}", reward=1.7e308 * (-1) ** (n // 2)) for n in range(40)]
    found = [*signal_block(samples, LIMITS).findings, *feedback_block(samples, LIMITS).findings]
    assert not any("nan" in f"{entry.evidence} {entry.title}".split() for entry in found)
    assert "too large to be squared" in finding(feedback_block(samples, LIMITS), "drift in time").title

"""What the data can be used for: each answer with its numbers and its way out, on both sides of each rule."""

from dataclasses import replace

import numpy as np
import pytest
from tests.findings.audit.fabricated import drawn, made

from klimb.experience.samples import Sample, SamplingSettings
from klimb.findings.audit import AuditReport, Thresholds, Use, audit
from klimb.findings.audit.collecting import plan_collecting
from klimb.findings.audit.contents import count_contents, good_rating
from klimb.findings.audit.recipe_choice import CLONING_THE_GOOD, RECIPES_FOR, WITHOUT_LOG_MU
from klimb.findings.audit.uses import CLONE, ESTIMATE, NO_RATIOS, RATINGS, RATIOS
from klimb.findings.statistics import mean_reward
from klimb.training import RECIPES
from klimb.ui.terminal.audit import first_screen


def thumbs(number: int, *, num_good: int, **others: object) -> list[Sample]:
    """Rated answers to questions of their own, without log-probabilities; what is good says so."""
    return [
        made(
            n,
            group=f"g{n}",
            prompt=f"question {n}",
            response=f"{'here you are' if n < num_good else 'no idea'}: {n}",
            ids=(),
            log_mu=None,
            reward=float(n < num_good),
            source="log",
            **others,
        )
        for n in range(number)
    ]


def use(report: AuditReport, name: str) -> Use:
    return next(use for use in report.uses if use.name == name)


def test_thumbs_can_be_cloned_and_learnt_from_and_not_corrected_by_ratios():
    report = audit(thumbs(400, num_good=230))
    assert [(use.name, use.answer) for use in report.uses] == [
        (CLONE, "yes"),
        (RATINGS, "yes"),
        (RATIOS, "no"),
        (NO_RATIOS, "yes"),
        (ESTIMATE, "no"),
    ]
    assert use(report, CLONE).num_samples == 230 and "230 answers of 400" in use(report, CLONE).reason
    assert use(report, RATINGS).recipes == report.verdict.recipes == ("kto", "dro", "asymre")
    assert "return_token_ids" in use(report, RATIOS).next_step and use(report, RATIOS).num_samples == 0
    assert use(report, NO_RATIOS).recipes == WITHOUT_LOG_MU


def test_few_ratings_say_how_many_more():
    report = audit(thumbs(12, num_good=6))
    few = use(report, RATINGS)
    assert few.answer == "partly" and few.num_samples == 12
    rewards = np.repeat([1.0, 0.0], 6)
    needed = mean_reward(rewards, np.arange(12), unit="prompt").units_for(0.1)
    assert needed is not None and f"{needed - 12} more questions" in few.next_step
    assert report.collecting.num_more == needed - 12 and report.collecting.half_then == 0.1


@pytest.mark.parametrize(("num_good", "answer"), [(100, "yes"), (99, "partly"), (0, "no")])
def test_a_hundred_good_answers_are_enough_to_clone(num_good: int, answer: str):
    assert use(audit(thumbs(200, num_good=num_good)), CLONE).answer == answer


def test_what_is_not_rated_can_be_cloned_by_who_would_send_it_again_and_nothing_else():
    report = audit([replace(sample, reward=None) for sample in thumbs(50, num_good=0)])
    assert [use.answer for use in report.uses] == ["partly", "no", "no", "no", "no"]
    assert "none of 50 answers is rated" in use(report, RATINGS).reason
    assert report.contents.best == () and report.contents.good_from is None


def test_ratings_of_one_value_teach_nothing():
    report = audit(thumbs(200, num_good=200))
    assert use(report, RATINGS).answer == "no" and "same rating" in use(report, RATINGS).reason
    assert report.contents.worst == () and len(report.contents.best) == 3


def test_with_log_probabilities_and_a_near_model_everything_can_be_done():
    samples, log_pi = drawn(num_prompts=64)
    report = audit(samples, log_pi=log_pi)
    assert [use.answer for use in report.uses] == ["yes"] * 5
    assert use(report, RATIOS).recipes == report.verdict.recipes
    assert use(report, ESTIMATE).next_step == "klimb estimate DATA --model MODEL"
    unmeasured = use(audit(samples), RATIOS)
    assert (unmeasured.answer, unmeasured.next_step[:12]) == ("partly", "klimb audit ")


def test_a_cut_off_and_a_far_model_leave_learning_without_ratios():
    samples, log_pi = drawn(num_prompts=64)
    cut = audit([replace(sample, sampling=SamplingSettings(top_p=0.5)) for sample in samples], log_pi=log_pi)
    assert (use(cut, RATIOS).answer, use(cut, NO_RATIOS).answer) == ("no", "yes")
    far = audit(samples, log_pi=[tuple(v + (3.0 if t % 3 else -1.5) for t, v in enumerate(row)) for row in log_pi])
    assert use(far, RATIOS).answer == "no" and "far" in use(far, RATIOS).reason
    assert "topr" in use(far, NO_RATIOS).recipes


def test_pairs_that_are_equal_by_chance_are_no_reason_against_them_and_equal_groups_are():
    generator = np.random.default_rng(0)
    pairs = [
        replace(sample, group_id=f"g{n // 2}", prompt=({"role": "user", "content": f"q{n // 2}"},))
        for n, sample in enumerate(thumbs(600, num_good=0))
    ]
    rated = [
        replace(s, reward=float(good), response=f"{good} {s.response}")
        for s, good in zip(pairs, generator.random(600) < 0.6, strict=True)
    ]
    assert use(audit(rated), NO_RATIOS).answer == "yes"
    equal = [replace(s, reward=float(int(s.group_id[1:]) % 2), response=f"{int(s.group_id[1:]) % 2} x") for s in rated]
    assert use(audit(equal), NO_RATIOS).answer != "yes"


def test_other_scales_are_good_from_their_middle_on():
    stars = [replace(sample, reward=float(n % 5 + 1)) for n, sample in enumerate(thumbs(200, num_good=0))]
    assert good_rating(stars) == 3.0
    assert count_contents(stars).num_good == 120
    assert good_rating([made(reward=-1e308), made(reward=1e308)]) == 0.0
    assert use(audit(stars), CLONE).next_step.endswith("advantages.min_reward=3")


def test_contents_count_sources_kinds_and_what_stayed_out():
    samples = [
        replace(s, metadata={"imported_as": "kto" if n else "openai"}) for n, s in enumerate(thumbs(5, num_good=2))
    ]
    found = count_contents(samples, files={"a.jsonl": 5}, left_out={"no answer": 3, "a bad date": 4})
    assert (found.num_samples, found.num_prompts, found.num_rated, found.num_good) == (5, 5, 5, 2)
    assert found.kinds == (("kto", 4), ("openai", 1)) and found.sources == (("log", 5),)
    assert found.left_out == (("a bad date", 4), ("no answer", 3)) and found.num_left_out == 7
    assert found.best[0].reward == 1.0 and found.worst[0].reward == 0.0


def test_enough_data_is_told_what_more_would_narrow_and_unrated_data_to_rate():
    enough = plan_collecting(thumbs(2000, num_good=1000), Thresholds())
    assert enough.is_enough and enough.half_now is not None and enough.half_then == pytest.approx(0.7 * enough.half_now)
    assert "Enough for now" in enough.in_words and enough.num_more is not None and enough.num_more > 1500
    assert "Have answers rated" in plan_collecting([made(reward=None)], Thresholds()).in_words


def test_every_recipe_that_is_named_is_one_and_takes_what_the_data_has():
    names = {name for recipes in (*RECIPES_FOR.values(), CLONING_THE_GOOD, WITHOUT_LOG_MU) for name in recipes}
    assert names <= set(RECIPES)
    without = {name for data in RECIPES_FOR if data.startswith("kto-or-dro") for name in RECIPES_FOR[data]}
    assert not any(RECIPES[name].needs_log_mu for name in without | set(WITHOUT_LOG_MU) | set(CLONING_THE_GOOD))


@pytest.mark.parametrize("number", [12, 400])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_first_screen_fits_a_terminal(number: int, shuffle: bool):
    samples = thumbs(number, num_good=number // 2, metadata={"imported_as": "kto"})
    samples = [
        replace(sample, response=f"{sample.response} or mail me at a{n}@b.org") for n, sample in enumerate(samples)
    ]
    if shuffle:
        order = np.random.default_rng(7).permutation(number)
        samples = [replace(sample, reward=float(row < number // 2)) for sample, row in zip(samples, order, strict=True)]
    left_out = {f"a reason of some words, number {n}": n for n in range(1, 9)}
    report = audit(samples, files={f"export-of-month-{n}.jsonl": 100 for n in range(7)}, left_out=left_out)
    lines = [line.plain for line in first_screen(report, width=80)]
    assert len(lines) <= 23, "one more line says what was audited"
    assert all(len(line) <= 80 for line in lines)
    assert any("personal" in line and line.endswith("→ klimb import FILE --into NEW --redact") for line in lines)


def test_the_question_that_is_shown_is_the_users_and_not_the_result_of_a_tool():
    sample = replace(
        thumbs(1, num_good=1)[0],
        prompt=({"role": "user", "content": "Where is it?"}, {"role": "tool", "content": "{}"}),
    )
    (best,) = count_contents([sample]).best
    assert best.prompt == "Where is it?"

"""Quirks of ratings: each is found where it is, and not where it is not."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.findings.audit.fabricated import made

from klimb.experience.feedback import Feedback
from klimb.experience.samples import Sample
from klimb.findings.audit import Thresholds, audit
from klimb.findings.audit.follow import BY_HOUR, BY_LANGUAGE, CONTRADICTIONS, FOLLOWS, follow_block
from klimb.findings.audit.raters import (
    AGREEMENT,
    CONSTANT,
    agreement_finding,
    constant_raters,
    latest_ratings,
    measure_agreement,
)
from klimb.findings.audit.report import Block
from klimb.findings.audit.uses import RATINGS
from klimb.findings.audit.wording import describe_answers, language_of
from klimb.findings.finding import Finding

LIMITS = Thresholds()


def finding(block: Block, name: str) -> Finding:
    return next(entry for entry in block.findings if entry.name == name)


def rated(texts: Sequence[str], rewards: Sequence[float], **others: object) -> list[Sample]:
    return [
        made(n, group=f"g{n}", prompt=f"question {n}", response=text, ids=(), log_mu=None, reward=float(reward))
        for n, (text, reward) in enumerate(zip(texts, rewards, strict=True))
    ]


def logged(samples: Sequence[Sample], **others: object) -> list[Sample]:
    return [replace(sample, source="log", **others) for sample in samples]


def answers(seed: int, number: int = 300) -> tuple[list[str], np.ndarray]:
    """Answers of random words, half of which say sorry, and whether they do."""
    generator = np.random.default_rng(seed)
    words = [" ".join(generator.choice([f"w{n}a" for n in range(60)], 12)) for _ in range(number)]
    sorry = generator.random(number) < 0.5
    return [f"{'sorry ' if is_sorry else ''}{text}" for text, is_sorry in zip(words, sorry, strict=True)], sorry


def test_ratings_that_follow_a_word_are_told_with_the_word():
    texts, sorry = answers(0)
    found = finding(follow_block(logged(rated(texts, ~sorry)), LIMITS), FOLLOWS)
    assert (found.status, found.number) == ("good", 0.001)
    assert "“sorry” (-1.00)" in found.evidence


def test_noisy_ratings_are_no_alarm_and_shuffled_ones_are():
    generator = np.random.default_rng(1)
    texts, sorry = answers(1)
    noisy = np.where(generator.random(300) < 0.2, sorry, ~sorry)
    assert finding(follow_block(logged(rated(texts, noisy)), LIMITS), FOLLOWS).status == "good"
    samples = logged(rated(texts, generator.permutation(noisy)))
    assert finding(follow_block(samples, LIMITS), FOLLOWS).status == "bad"
    report = audit(samples)
    assert (report.verdict.kind, report.verdict.decided_by) == ("collect-more", FOLLOWS)
    assert next(use for use in report.uses if use.name == RATINGS).answer == "no"
    assert "more of the same would not help" in report.collecting.in_words


def test_rewards_of_a_program_and_few_ratings_are_not_asked():
    texts, sorry = answers(2)
    shuffled = rated(texts, np.random.default_rng(2).permutation(sorry))
    assert finding(follow_block(shuffled, LIMITS), FOLLOWS).status == "unknown"
    by_program = logged(shuffled, metadata={"imported_as": "verifiers"})
    assert finding(follow_block(by_program, LIMITS), FOLLOWS).status == "unknown"
    by_people = [replace(sample, metadata={"served_by": "klimb"}) for sample in shuffled]
    assert finding(follow_block(by_people, LIMITS), FOLLOWS).status == "bad", "of answers of klimb serve"
    few = finding(follow_block(logged(shuffled[:99]), LIMITS), FOLLOWS)
    assert few.status == "unknown" and "99 ratings" in few.title


def test_ratings_by_the_right_result_alone_are_no_alarm():
    generator = np.random.default_rng(3)
    samples: list[Sample] = []
    for number in range(300):
        a, b = (int(value) for value in generator.integers(10, 90, 2))
        wrong = 0 if generator.random() < 0.6 else int(generator.integers(1, 5))
        sample = made(number, prompt=f"What is {a} + {b}?", response=f"It is {a + b + wrong}.", reward=float(not wrong))
        samples.append(replace(sample, group_id=f"g{number}", source="log"))
    found = finding(follow_block(samples, LIMITS), FOLLOWS)
    assert found.status == "good" and "the sum of two numbers of the question" in found.evidence


def test_ratings_by_a_right_word_alone_are_no_alarm():
    generator = np.random.default_rng(10)
    capitals = [("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Peru", "Lima"), ("Egypt", "Cairo")]
    samples: list[Sample] = []
    for number in range(300):
        (country, right), (_, other) = (capitals[int(n)] for n in generator.integers(0, len(capitals), 2))
        said = right if generator.random() < 0.5 else other
        reward = float((said == right) != (generator.random() < 0.1))
        prompt, response = f"{number}: capital of {country}?", f"It is {said}."
        samples.append(made(number, group=f"g{number}", prompt=prompt, response=response, reward=reward, source="log"))
    assert finding(follow_block(samples, LIMITS), FOLLOWS).status == "good"


def test_ratings_that_are_trusted_are_not_held_against_shuffled_ones():
    texts, sorry = answers(11)
    samples = logged(rated(texts, np.random.default_rng(11).permutation(sorry)))
    assert "--trust-ratings" in next(use for use in audit(samples).uses if use.name == RATINGS).next_step
    report = audit(samples, thresholds=Thresholds(max_shuffled_chance=1.0))
    assert next(use for use in report.uses if use.name == RATINGS).answer == "yes"
    assert report.verdict.decided_by != FOLLOWS


def test_people_who_agree_rate_the_answers_whatever_is_seen_of_them():
    texts, sorry = answers(4, 200)
    samples = logged(rated(texts, np.random.default_rng(4).permutation(sorry)))
    votes = [
        Feedback(feedback_id=f"{user}{s.sample_id}", sample_id=s.sample_id, value=s.reward, user=user)
        for s in samples[:40]
        for user in ("ann", "ben")
    ]
    assert finding(follow_block(samples, LIMITS), FOLLOWS).status == "bad"
    report = audit(samples, ratings=votes)
    found = next(f for block in report.blocks for f in block.findings if f.name == FOLLOWS)
    assert found.status == "good" and "raters agree" in found.evidence


@pytest.mark.parametrize(("num_different", "status"), [(0, "good"), (4, "good"), (10, "warning")])
def test_the_same_answer_to_the_same_question_is_not_good_and_bad(num_different: int, status: str):
    first = rated([f"answer {n}" for n in range(20)], [1.0] * 20)
    again = [
        replace(sample, sample_id=f"again{n}", created_at=9000.0 + n, reward=float(n >= num_different))
        for n, sample in enumerate(first)
    ]
    found = finding(follow_block(logged([*first, *again]), LIMITS), CONTRADICTIONS)
    assert (found.status, found.number) == (status, num_different / 20)


GERMAN, ENGLISH = "das ist nicht die Antwort und ich", "this is the answer to that and you"


@pytest.mark.parametrize(("higher", "status"), [(0.0, "good"), (0.6, "warning")])
def test_ratings_by_language(higher: float, status: str):
    generator = np.random.default_rng(5)
    is_german = generator.random(300) < 0.3
    rewards = generator.random(300) < np.where(is_german, 0.3 + higher, 0.3)
    texts = [f"{GERMAN if german else ENGLISH} {n}" for n, german in enumerate(is_german)]
    assert finding(follow_block(logged(rated(texts, rewards)), LIMITS), BY_LANGUAGE).status == status


def test_languages_are_told_by_script_and_common_words():
    told = {GERMAN: "German", ENGLISH: "English", "это хороший ответ": "Cyrillic", "这是一个答案": "Chinese"}
    told |= {"これは答えです": "Japanese", "12 + 4": "not told", "zebra quux": "not told", "": "not told"}
    assert {text: language_of(text) for text in told} == told


@pytest.mark.parametrize(("at_night", "status"), [(0.5, "good"), (0.05, "warning")])
def test_ratings_by_hour(at_night: float, status: str):
    generator = np.random.default_rng(6)
    hours = generator.integers(0, 24, 600)
    days = np.arange(600) // 20
    rewards = generator.random(600) < np.where(hours < 8, at_night, 0.5)
    samples = [
        replace(sample, created_at=1_750_000_000.0 // 86400 * 86400 + 86400.0 * day + 3600.0 * hour)
        for sample, day, hour in zip(rated(["x"] * 600, rewards), days, hours, strict=True)
    ]
    assert finding(follow_block(logged(samples), LIMITS), BY_HOUR).status == status


def test_ratings_of_one_stamp_have_no_hour():
    samples = [replace(sample, created_at=1_749_945_600.0) for sample in rated(["x", "y"] * 20, [1, 0] * 20)]
    assert finding(follow_block(logged(samples), LIMITS), BY_HOUR).status == "unknown"


def votes_of(constant: int, number: int = 20, *, share: float = 0.5) -> dict[str, dict[str, float]]:
    """Ratings by 10 people of `number` answers each, of whom the first say yes whatever they see."""
    generator = np.random.default_rng(7)
    return {
        f"s{user}-{n}": {f"u{user}": 1.0 if user < constant else float(generator.random() < share)}
        for user in range(10)
        for n in range(number)
    }


def test_raters_who_always_say_yes_are_found():
    found = constant_raters(votes_of(2), LIMITS)
    assert (found.status, found.number) == ("warning", 0.2)
    assert found.evidence.startswith("2 of 10 raters")


def test_raters_who_may_mean_it_are_no_alarm():
    assert constant_raters(votes_of(0), LIMITS).number == 0.0
    assert constant_raters(votes_of(2, 9), LIMITS).number == 0.0, "9 ratings are no pattern"
    assert constant_raters(votes_of(2, 20, share=0.95), LIMITS).number == 0.0, "where nearly all is good, so is theirs"
    assert constant_raters({"s": {"": 1.0}}, LIMITS).status == "unknown"


def agreeing(noise: float, number: int = 80) -> dict[str, dict[str, float]]:
    generator = np.random.default_rng(8)
    truth = generator.random(number) < 0.5
    seen = {user: np.where(generator.random(number) < noise, ~truth, truth) for user in "ab"}
    return {f"s{n}": {user: float(values[n]) for user, values in seen.items()} for n in range(number)}


@pytest.mark.parametrize(("noise", "status"), [(0.02, "good"), (0.2, "warning"), (0.5, "bad")])
def test_agreement_of_raters(noise: float, status: str):
    assert agreement_finding(measure_agreement(agreeing(noise)), LIMITS).status == status


def test_agreement_of_few_answers_is_no_claim():
    assert agreement_finding(measure_agreement(agreeing(0.5, 4)), LIMITS).status == "unknown"
    assert agreement_finding(measure_agreement({"s": {"a": 1.0}}), LIMITS).status == "unknown"


def test_the_later_of_two_ratings_by_one_person_counts_and_a_comment_does_not():
    given = [
        Feedback(feedback_id="1", sample_id="s", value=0.0, user="ann", created_at=1.0),
        Feedback(feedback_id="2", sample_id="s", value=1.0, user="ann", created_at=2.0),
        Feedback(feedback_id="3", sample_id="s", value=0.0, user="ben", created_at=1.0),
        Feedback(feedback_id="4", sample_id="s", value=None, user="ben", created_at=9.0, comment="hm"),
    ]
    assert latest_ratings(given) == {"s": {"ann": 1.0, "ben": 0.0}}


def test_ratings_given_one_by_one_reach_the_report():
    texts, sorry = answers(9, 120)
    samples = logged(rated(texts, ~sorry))
    votes = [
        Feedback(feedback_id=f"{user}{s.sample_id}", sample_id=s.sample_id, value=s.reward, user=user)
        for s in samples
        for user in ("ann", "ben")
    ]
    names = {f.name: f for block in audit(samples, ratings=votes).blocks for f in block.findings}
    assert (names[AGREEMENT].status, names[AGREEMENT].number) == ("good", 1.0)
    assert names[CONSTANT].status == "good"


def test_what_is_seen_of_answers_is_one_row_each_and_rare_words_are_left_out():
    wording = describe_answers(rated(["the same end"] * 6 + ["rare word"] * 4, [1.0] * 10))
    assert wording.columns.shape == (10, len(wording.names)) and np.isfinite(wording.columns).all()
    # 10 answers: a word is compared if 5 of them have it, and 5 have not.
    assert not [name for name in wording.names if "rare" in name]

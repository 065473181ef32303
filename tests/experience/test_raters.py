"""One person's word: capped, or out of the count altogether, and back again."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from tests.experience.test_store import BARE

from klimb.experience.feedback import Feedback
from klimb.experience.quarantine import FILE, quarantine_rater, read_quarantine, release_rater
from klimb.experience.rater_cap import ratings_that_count
from klimb.experience.store import Store


def rating(sample_id: str, user: str, value: float) -> Feedback:
    return Feedback(feedback_id=f"{sample_id} {user}", sample_id=sample_id, value=value, user=user)


def mean(store: Store, begins: str) -> float:
    rewards = [sample.reward for sample in store.samples() if sample.sample_id.startswith(begins)]
    known = [reward for reward in rewards if reward is not None]
    return sum(known) / len(known)


@pytest.fixture
def polled(tmp_path: Path) -> Store:
    """Ten raters and ten answers, five good and five bad; the tenth rater says the opposite of what all others say."""
    store = Store(tmp_path)
    ids = [f"{kind}{number}" for kind in ("good", "bad") for number in range(5)]
    store.append([replace(BARE, sample_id=each) for each in ids])
    raters = [(f"r{number}", number == 9) for number in range(10)]
    rows = [rating(each, rater, float(each.startswith("good") != inverts)) for each in ids for rater, inverts in raters]
    store.append_feedback(rows)
    return store


def test_a_tenth_of_hostile_raters_moves_a_mean_by_a_tenth_and_by_nothing_in_quarantine(polled: Store):
    # Nine of ten say 1: 0.9, and of the bad answers one of ten does: 0.1.
    assert (mean(polled, "good"), mean(polled, "bad")) == pytest.approx((0.9, 0.1))
    assert quarantine_rater(polled.folder, "r9", reason="says the opposite of everybody")
    assert (mean(polled, "good"), mean(polled, "bad")) == (1.0, 0.0)
    assert polled.sample("good0").reward_reason == "rated by 9 users"


def test_a_quarantine_can_be_seen_and_undone_and_loses_no_word(polled: Store):
    quarantine_rater(polled.folder, "r9", reason="why")
    assert read_quarantine(polled.folder)["r9"].reason == "why"
    assert not quarantine_rater(polled.folder, "r9")
    assert polled.query("select count(*) as n from feedback").to_pylist() == [{"n": 90}]
    assert polled.query("select count(*) as n from every_feedback").to_pylist() == [{"n": 100}]
    assert release_rater(polled.folder, "r9")
    assert not release_rater(polled.folder, "r9")
    assert not (polled.folder / FILE).exists()
    assert mean(polled, "good") == pytest.approx(0.9)


def test_the_name_of_a_rater_in_quarantine_is_no_sql(polled: Store):
    quarantine_rater(polled.folder, "') or true --")
    assert mean(polled, "good") == pytest.approx(0.9)


def test_a_damaged_quarantine_stops_reading_and_releases_nobody(polled: Store):
    (polled.folder / FILE).write_text("{}")
    with pytest.raises(ValueError, match="not a file of quarantined raters"):
        polled.count()


@pytest.fixture
def flooded(tmp_path: Path) -> Store:
    """Nine honest raters of ten good answers each, and one who calls ninety bad; each answer has one rating."""
    store = Store(tmp_path)
    honest = [(f"a{rater}-{number}", f"r{rater}", 1.0) for rater in range(9) for number in range(10)]
    hostile = [(f"h{number}", "r9", 0.0) for number in range(90)]
    store.append([replace(BARE, sample_id=each) for each, *_ in (*honest, *hostile)])
    store.append_feedback([rating(*each) for each in (*honest, *hostile)])
    return store


def test_who_rates_as_much_as_all_others_together_decides_a_half_and_capped_a_fifth(flooded: Store):
    assert mean(flooded, "") == 0.5
    # With ten raters the least share is 2/10: the largest c with c ≤ 0.2·(90 + c) is 22, and 90/112 = 0.804.
    capped = Store(flooded.folder, max_rater_fraction=0.1)
    assert mean(capped, "") == pytest.approx(90 / 112)
    assert capped.count("reward is not null") == 112
    assert mean(Store(flooded.folder, max_rater_fraction=0.2), "") == mean(capped, "")
    assert mean(Store(flooded.folder, max_rater_fraction=0.3), "") == pytest.approx(90 / 128)  # c ≤ 0.3·(90 + c): 38
    again = Store(flooded.folder, max_rater_fraction=0.1)
    assert list(again.samples(where="reward = 0")) == list(capped.samples(where="reward = 0"))


def test_ratings_of_nobody_named_are_not_taken_for_one_persons(tmp_path: Path):
    store = Store(tmp_path, max_rater_fraction=0.1)
    store.append([replace(BARE, sample_id=f"s{number}") for number in range(40)])
    store.append_feedback([rating(f"s{number}", "" if number < 30 else f"r{number}", 1.0) for number in range(40)])
    assert store.count("reward is not null") == 40


def test_the_cap_is_the_largest_that_keeps_everybody_within_the_share():
    for counts in itertools.combinations_with_replacement((1, 2, 5, 30, 100), 5):
        for fraction in (0.1, 0.4, 0.5, 0.7):
            share = max(fraction, 2 / len(counts))
            fit = [c for c in range(1, 101) if c <= share * sum(min(n, c) for n in counts) + 1e-9]
            found = ratings_that_count(counts, max_fraction=fraction)
            assert found == (None if max(counts) in fit else max(fit)), (counts, fraction)
    assert ratings_that_count([], max_fraction=0.1) is None
    with pytest.raises(ValueError, match="max_fraction"):
        ratings_that_count([1], max_fraction=0)

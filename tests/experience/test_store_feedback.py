from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.experience.test_store import BARE, BASE

from klimb.experience import SegmentError
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.findings.audit.raters import latest_ratings


def rating(number: int, value: float | None, *, sample_id: str = "a-0", **fields) -> Feedback:
    return Feedback(feedback_id=f"f{number}", sample_id=sample_id, value=value, **fields)


def by_id(store: Store) -> list[Feedback]:
    return sorted(store.stored_feedback(["f1", "f2"]), key=lambda row: row.feedback_id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.append([BASE, BARE])
    return store


def test_a_rated_sample_has_the_rating_as_reward_and_says_so(store: Store):
    store.append_feedback([rating(1, 0.25, user="u")])
    rated, unrated = store.samples()
    assert rated == replace(BASE, reward=0.25, reward_reason="rated by 1 user")
    assert unrated == BARE, "unrated stays None"


def test_the_latest_of_each_user_counts_then_the_mean_over_users(store: Store):
    store.append_feedback(
        [
            rating(1, 0.0, user="anna", created_at=10.0),
            rating(2, 1.0, user="anna", created_at=20.0),
            rating(3, 0.5, user="ben", created_at=15.0),
            rating(4, 0.0, user="ben", created_at=5.0),
        ]
    )
    # anna's 1.0 and ben's 0.5
    assert store.sample("a-0").reward == 0.75
    assert store.sample("a-0").reward_reason == "rated by 2 users"


def test_what_a_model_or_a_judge_gave_never_counts_as_a_persons_rating(store: Store):
    by_machines = [
        rating(1, 0.0, user="model:1f", name="model:1f"),
        rating(2, 0.0, user="judge:2f", name="judge:2f"),
        rating(3, 0.0, sample_id=BARE.sample_id, user="judge:2f", name="judge:2f"),
    ]
    store.append_feedback([*by_machines, rating(4, 1.0, user="anna"), rating(5, 0.5, user="ben", name="model")])
    assert store.sample("a-0").reward == 0.75, "of anna and ben: a person's question may be called `model`"
    assert store.sample("a-0").reward_reason == "rated by 2 users"
    assert store.sample(BARE.sample_id) == BARE, "nobody rated it"
    assert store.query("select count(*) as n from feedback").to_pydict() == {"n": [5]}, "they are kept"
    every = list(store.stored_feedback([f"f{number}" for number in range(1, 6)]))
    assert latest_ratings(every) == {"a-0": {"anna": 1.0, "ben": 0.5}}


def test_of_two_ratings_at_one_time_the_later_added_counts(store: Store):
    store.append_feedback([rating(1, 0.0), rating(2, 1.0)])
    assert store.sample("a-0").reward == 1.0
    store.append_feedback([rating(3, 0.5)])
    assert store.sample("a-0").reward == 0.5


def test_a_users_ratings_under_several_names_are_averaged_before_the_users(store: Store):
    store.append_feedback(
        [
            rating(1, 1.0, user="anna", name="helpful"),
            rating(2, 0.0, user="anna", name="polite"),
            rating(3, 1.0, user="ben"),
        ]
    )
    assert store.sample("a-0").reward == (0.5 + 1.0) / 2


def test_a_value_of_none_never_counts(store: Store):
    store.append_feedback([rating(1, 1.0, user="u", created_at=1.0), rating(2, None, user="u", created_at=2.0)])
    store.append_feedback([rating(3, None, sample_id="b-0", comment="hm")])
    assert [sample.reward for sample in store.samples()] == [1.0, None]


def test_the_latest_comment_is_part_of_the_reason(store: Store):
    store.append_feedback(
        [
            rating(1, 0.0, user="anna", comment="too long", created_at=2.0),
            rating(2, 1.0, user="ben", comment="fine", created_at=1.0),
            rating(3, 1.0, user="eve", created_at=3.0),
        ]
    )
    assert store.sample("a-0").reward_reason == "rated by 3 users: too long"


def test_feedback_that_comes_before_its_sample_joins_when_it_arrives(store: Store):
    store.append_feedback([rating(1, 0.5, sample_id="late")])
    assert store.count() == 2
    store.append([replace(BASE, sample_id="late")])
    assert store.sample("late").reward == 0.5


def test_feedback_is_added_once(store: Store):
    first = store.append_feedback([rating(1, 1), rating(2, 0.0)])
    again = store.append_feedback([rating(1, 1.0), rating(2, 0.5), rating(3, 1.0), rating(3, 1.0)])
    assert (first.num_added, first.num_duplicates) == (2, 0)
    assert (again.num_added, again.num_duplicates, again.conflicts) == (1, 2, ("f2",))
    assert store.query("select feedback_id, value from feedback order by all").to_pydict() == {
        "feedback_id": ["f1", "f2", "f3"],
        "value": [1.0, 0.0, 1.0],
    }


def test_of_feedback_that_two_writers_added_each_id_counts_once(tmp_path: Path, monkeypatch):
    slow, quick = Store(tmp_path), Store(tmp_path)
    slow.append([BASE])
    monkeypatch.setattr(slow, "_known_feedback", lambda ids: [quick.append_feedback([rating(1, 1.0, user="u")]), []][1])
    slow.append_feedback([rating(1, 1.0, user="u"), rating(2, 0.0, user="v")])
    assert len(slow.files().feedback) == 2
    assert slow.query("select feedback_id from feedback order by all").to_pydict() == {"feedback_id": ["f1", "f2"]}
    assert slow.sample("a-0").reward == 0.5


def test_where_sees_the_reward_with_ratings_and_append_the_one_without(store: Store):
    store.append_feedback([rating(1, 0.0)])
    assert [store.count("reward = 0"), store.count("reward = 1"), store.count("reward is null")] == [1, 0, 1]
    assert store.append([BASE]).num_duplicates == 1


def test_the_source_and_the_rest_of_a_rated_sample_stay(store: Store):
    store.append_feedback([rating(1, 0.0)])
    rated = store.sample("a-0")
    assert (rated.source, rated.reward_parts, rated.log_mu) == (BASE.source, BASE.reward_parts, BASE.log_mu)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_rating_that_is_no_number_is_refused(value: float):
    with pytest.raises(ValueError, match="give a finite number, or None"):
        rating(1, value)


def test_a_rating_without_ids_is_refused():
    with pytest.raises(ValueError, match="both ids must be given"):
        rating(1, 1.0, sample_id="")


def test_a_damaged_file_of_feedback_is_named(store: Store):
    store.append_feedback([rating(1, 0.0)])
    (segment,) = store.files().feedback
    segment.path.write_bytes(segment.path.read_bytes()[:100])
    with pytest.raises(SegmentError, match=segment.path.name):
        store.count()


def test_what_is_no_rating_is_kept_and_does_not_rate(store: Store):
    said = [
        rating(1, None, over="b", user="anna"),
        rating(2, None, correction="Three.", comment="it is three"),
    ]
    store.append_feedback(said)
    assert by_id(store) == said
    assert store.sample("a-0") == BASE


def test_nobody_prefers_a_sample_to_itself():
    with pytest.raises(ValueError, match="preferred to itself"):
        rating(1, None, over="a-0")


def test_feedback_of_version_1_is_read_beside_that_of_today(store: Store):
    store.append_feedback([rating(1, 0.25, user="u")])
    (path,) = store.folder.glob("feedback-*.parquet")
    table = pq.read_table(path).drop_columns(["over", "correction"])
    pq.write_table(table.replace_schema_metadata({b"klimb.kind": b"feedback", b"klimb.schema_version": b"1"}), path)
    only_old = Store(store.folder)
    assert list(only_old.stored_feedback(["f1"])) == [rating(1, 0.25, user="u")]
    only_old.append_feedback([rating(2, None, sample_id="b", over="a-0")])
    both = Store(store.folder)
    assert by_id(both) == [
        rating(1, 0.25, user="u"),
        rating(2, None, sample_id="b", over="a-0"),
    ]
    assert both.sample("a-0").reward == 0.25

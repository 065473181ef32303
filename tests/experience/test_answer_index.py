"""The index of answers says what the store says, whatever happens to the store's files."""

import random
import time
from pathlib import Path

import pytest

from klimb.experience.answer_index import AnswerIndex, JudgedAnswers, read_texts
from klimb.experience.feedback import Feedback
from klimb.experience.quarantine import quarantine_rater, release_rater
from klimb.experience.samples import Sample
from klimb.experience.segments import SegmentError, write_samples
from klimb.experience.store import Store


def sample(name: str, **values) -> Sample:
    return Sample(
        **{
            "sample_id": name,
            "group_id": name,
            "prompt": ({"role": "user", "content": f"{name}?"},),
            "prompt_ids": (),
            "response": f"{name}!",
            "response_ids": (),
            "finish_reason": "stop",
            "created_at": 1.0,
        }
        | values
    )


def means(found: JudgedAnswers) -> dict[str, float | None]:
    return {name: found.rating(answer) for name, answer in found.answers.items()}


def test_the_ratings_are_those_of_the_store(tmp_path: Path):
    store, chance = Store(tmp_path), random.Random(0)
    names = [f"s{number}" for number in range(40)]
    index = AnswerIndex(tmp_path)
    for round_number in range(4):
        added = [sample(name, reward=chance.choice([None, 0.25])) for name in names[10 * round_number :][:10]]
        store.append(added)
        store.append_feedback(
            [
                Feedback(
                    feedback_id=f"f{round_number}-{number}",
                    sample_id=chance.choice(names),
                    value=chance.choice([0.0, 1.0, 3.0, None]),
                    name=chance.choice(["rating", "tone", "judge:short"]),
                    user=chance.choice(["", "a", "b"]),
                    created_at=float(chance.randrange(3)),
                )
                for number in range(30)
            ]
        )
        found = index.look()
        assert means(found) == pytest.approx(dict(store.rewards(list(found.answers))), nan_ok=True)
        assert len(found.answers) == store.count()


def test_answers_come_in_the_order_of_their_time_also_when_an_older_one_arrives_later(tmp_path: Path):
    store, index = Store(tmp_path), AnswerIndex(tmp_path)
    store.append([sample("b", created_at=2.0)])
    assert list(index.look().answers) == ["b"]
    store.append([sample("c", created_at=3.0)])
    store.append([sample("a", created_at=1.0)])
    assert list(index.look().answers) == ["a", "b", "c"]
    assert [answer.sample_id for answer in index.look().waiting(limit=2)] == ["c", "b"]


def test_texts_are_found_also_after_files_were_put_together(tmp_path: Path):
    store, index = Store(tmp_path), AnswerIndex(tmp_path)
    for name in "abc":
        store.append([sample(name)])
    before = index.look().waiting(limit=9)
    small = sorted(tmp_path.glob("*.parquet"))
    write_samples(tmp_path / "samples-000009-0123456789abcdef.parquet", [sample(name) for name in "abc"])
    assert len(index.look().answers) == 3
    for path in small:
        path.unlink()
    with pytest.raises(FileNotFoundError):
        read_texts(before)
    texts = read_texts(index.look().waiting(limit=9))
    assert [(text.answer.sample_id, text.prompt[0]["content"], text.response) for text in texts] == [
        (name, f"{name}?", f"{name}!") for name in "cba"
    ]


def test_a_sample_that_is_gone_from_the_store_is_gone_from_the_index(tmp_path: Path):
    store, index = Store(tmp_path), AnswerIndex(tmp_path)
    store.append([sample("kept")])
    store.append([sample("forgotten")])
    assert len(index.look().answers) == 2
    max(tmp_path.glob("*.parquet")).unlink()
    assert list(index.look().answers) == ["kept"]


def test_an_index_that_met_a_damaged_file_goes_on_when_it_is_gone(tmp_path: Path):
    store, index = Store(tmp_path), AnswerIndex(tmp_path)
    store.append([sample("a")])
    damaged = tmp_path / "samples-000009-00.parquet"
    damaged.write_bytes(b"PAR1")
    with pytest.raises(SegmentError):
        index.look()
    damaged.unlink()
    assert list(index.look().answers) == ["a"]


def test_what_did_not_change_is_not_read_again(tmp_path: Path):
    store, index = Store(tmp_path), AnswerIndex(tmp_path)
    store.append([sample("a")])
    assert index.look() is index.look()
    before = index.look().answers["a"]
    store.append([sample("b")])
    assert index.look().answers["a"] is before


def test_an_index_over_a_folder_that_is_not_there_is_empty_and_fills(tmp_path: Path):
    index = AnswerIndex(tmp_path / "later")
    assert index.look().answers == {}
    Store(tmp_path / "later").append([sample("a")])
    assert list(index.look().answers) == ["a"]


def test_a_rater_in_quarantine_has_said_nothing_until_released(tmp_path: Path):
    store, index = Store(tmp_path), AnswerIndex(tmp_path)
    store.append([sample("a"), sample("b")])
    store.append_feedback(
        [
            Feedback(feedback_id="1", sample_id="a", value=1.0, user="good"),
            Feedback(feedback_id="2", sample_id="a", value=0.0, user="bad"),
            Feedback(feedback_id="3", sample_id="b", value=0.0, user="bad"),
        ]
    )
    assert means(index.look()) == {"a": 0.5, "b": 0.0}
    quarantine_rater(tmp_path, "bad")
    assert means(index.look()) == {"a": 1.0, "b": None} == dict(Store(tmp_path).rewards(["a", "b"]))
    assert [answer.sample_id for answer in index.look().waiting(limit=9)] == ["b"]
    release_rater(tmp_path, "bad")
    assert means(index.look()) == {"a": 0.5, "b": 0.0}


@pytest.mark.slow
def test_a_store_of_a_hundred_thousand_answers_is_paged_within_a_second_while_it_grows(tmp_path: Path):
    store, index = Store(tmp_path), AnswerIndex(tmp_path)
    for part in range(5):
        names = range(20_000 * part, 20_000 * (part + 1))
        path = tmp_path / f"samples-{part + 1:06d}-{part:016x}.parquet"
        write_samples(path, (sample(f"s{number:06d}", created_at=float(number)) for number in names))
    rows = [Feedback(feedback_id=f"f{n}", sample_id=f"s{n:06d}", value=1.0, user=f"u{n % 9}") for n in range(30_000)]
    store.append_feedback(rows, known=())
    index.look()
    for number, change in enumerate(
        [
            lambda: None,
            lambda: store.append([sample("new", created_at=1e6)], known=()),
            lambda: store.append_feedback([Feedback(feedback_id="new", sample_id="new", value=1.0)], known=()),
        ]
    ):
        change()
        begun = time.perf_counter()
        found = index.look()
        texts = read_texts(found.waiting(limit=20))
        assert time.perf_counter() - begun < 1.0, number
        assert len(texts) == 20
    assert texts[0].answer.sample_id == "s099999"

"""Ratings as people write them: what is plain is read, what is not is refused with the way out."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tests.experience.importing.importing_rows import as_row, reason_of, sample_of, written

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.importing.rating_texts import read_rating, read_thumb
from klimb.experience.importing.rules import rating, reward
from klimb.experience.store import Store

TABLE = {"prompt": "a", "response": "b"}


def rewards_of(tmp_path: Path, texts: Sequence[str], rules: ImportRules | None = None) -> list[float | None]:
    path = tmp_path / "a.csv"
    lines = [f'a,"b{number}","{text}"' for number, text in enumerate(texts)]
    path.write_text("\n".join(["prompt,response,reward", *lines]) + "\n", encoding="utf-8")
    store = Store(tmp_path / "store")
    import_rows(store, path, rules=rules)
    return [sample.reward for sample in store.samples()]


@pytest.mark.parametrize(
    ("text", "value", "form"),
    [
        ("4", 4, "number"),
        ("-0.5", -0.5, "number"),
        ("1e-3", 0.001, "number"),
        ("4,5", 4.5, "comma"),
        ("0,125", 0.125, "comma"),
        ("4/5", 4, "of 5"),
        ("4 out of 5", 4, "of 5"),
        ("4,5 von 5 Sternen", 4.5, "of 5"),
        ("8 / 10", 8, "of 10"),
        ("80 %", 80, "percent"),
        ("12,5%", 12.5, "percent"),
        ("5 stars", 5, "stars"),
        ("1 Stern", 1, "stars"),
        ("★★★★☆", 4, "stars"),
        ("⭐️⭐️", 2, "stars"),
    ],
)
def test_a_number_is_read_as_it_is_written(text: str, value: float, form: str):
    found = read_rating(text)
    assert found is not None and (found.value, found.form) == (value, form)


@pytest.mark.parametrize("text", ["1,234", "6/5", "4-5", "about 4", "★?", "5 apples", "1_000", "inf", "4/5 2026", ""])
def test_what_can_be_read_in_two_ways_or_is_no_number_is_none(text: str):
    assert read_rating(text) is None


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        *(("👍", "👎"), ("👍🏽", "👎🏿"), ("up", "down"), ("thumbs up", "thumbs_down"), ("Good", "BAD"), ("yes", "no")),
        *(("positive", "negative"), ("helpful", "Not helpful"), ("like", "dislike"), ("True", "False")),
        *(("gut", "schlecht"), ("oui", "non"), ("sí", "no"), ("хорошо", "плохо"), (":thumbsup:", ":thumbsdown:")),
    ],
)
def test_words_for_good_and_bad_are_one_and_zero_on_any_scale(good: str, bad: str):
    for rules in (ImportRules(), ImportRules(scale=(1, 5))):
        assert [rating(text, rules, as_row({})) for text in (good, bad)] == [1.0, 0.0]
        assert [reward(text, rules, as_row({})) for text in (good, bad)] == [1.0, 0.0]


@pytest.mark.parametrize("text", ["great", "ok", "neutral", "maybe", "up and down"])
def test_any_other_word_needs_a_map(text: str):
    assert read_thumb(text) is None
    assert reason_of("table", {**TABLE, "reward": text}) == "the reward is text"
    assert sample_of("table", {**TABLE, "reward": text}, value_map={text: 0.25}).reward == 0.25


@pytest.mark.parametrize("text", ["", "-", "—", "n/a", "N/A", "NA", "null", "None", "NaN", " nan ", "Not rated", "?"])
@pytest.mark.parametrize("rules", [{}, {"scale": (1, 5)}, {"value_map": {"good": 1.0}}], ids=str)
def test_what_is_written_where_nobody_rated_is_no_rating(text: str, rules: dict[str, object]):
    for is_text in (True, False):
        row = as_row({}, is_text=is_text)
        assert reward(text, ImportRules(**rules), row) is None  # type: ignore[arg-type]
        assert rating(text, ImportRules(**rules), row) is None  # type: ignore[arg-type]


def test_a_map_may_name_a_sign_of_no_rating_and_a_number_as_it_comes():
    rules = ImportRules(value_map={"?": 0.5, "4": 1.0})
    assert [reward(value, rules, as_row({})) for value in ("?", 4, 4.0, "4", " 4 ", "n/a")] == [0.5, 1, 1, 1, 1, None]


@pytest.mark.parametrize(
    ("texts", "rules", "rewards"),
    [
        (["4,5", "3", "", "0,5"], {}, [4.5, 3.0, None, 0.5]),
        (["4/5", "1/5", "n/a", "5/5"], {"scale": (1, 5)}, [0.75, 0.0, None, 1.0]),
        (["4/5", "1/5"], {}, [4.0, 1.0]),
        (["80 %", "5%", "-"], {}, [0.8, 0.05, None]),
        (["80 %", "5%"], {"scale": (0, 100)}, [0.8, 0.05]),
        (["80 %", "5%"], {"scale": (0, 1)}, [0.8, 0.05]),
        (["★★★★☆", "★☆☆☆☆", "★★★★★"], {"scale": (1, 5)}, [0.75, 0.0, 1.0]),
        (["5 stars", "1 star"], {"scale": (1, 5)}, [1.0, 0.0]),
        (["👍", "", "👎"], {}, [1.0, None, 0.0]),
    ],
)
def test_a_column_of_one_form_is_read(
    tmp_path: Path, texts: list[str], rules: dict[str, tuple[float, float]], rewards: list[float | None]
):
    assert rewards_of(tmp_path, texts, ImportRules(**rules)) == pytest.approx(rewards)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "rules", "message"),
    [
        (["4/5", "8/10"], {}, r"a.csv:2: the rating '4/5' is written otherwise than others .*'8/10'.*--map '4/5=1'"),
        (["4", "80 %"], {}, "'80 %' is written otherwise"),
        (["4,5", "4.5"], {}, "written otherwise"),
        (["4/5", "3"], {}, "written otherwise"),
        (["4/5", "3/5"], {"scale": (1, 10)}, "is of 5, and --scale ends at 10"),
    ],
)
def test_a_column_of_several_forms_stops_the_import_before_anything_is_added(
    tmp_path: Path, texts: list[str], rules: dict[str, tuple[float, float]], message: str
):
    with pytest.raises(ValueError, match=rf"{message}.*Nothing was added"):
        rewards_of(tmp_path, texts, ImportRules(**rules))  # type: ignore[arg-type]
    assert not list(tmp_path.glob("store/*.parquet"))


def test_thousands_or_decimals_is_refused_and_not_guessed(tmp_path: Path):
    assert rewards_of(tmp_path, ["1,234", "2"]) == [2.0]


def test_forms_are_read_from_json_too_and_a_bare_number_stays_no_text(tmp_path: Path):
    store = Store(tmp_path / "store")
    rows = [{**TABLE, "response": text, "reward": text} for text in ("4/5", "2/5")]
    import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert [sample.reward for sample in store.samples()] == [4.0, 2.0]
    assert reason_of("table", {**TABLE, "reward": "4"}) == "the reward is text"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("0.25"), 0.25),
        (np.float32(0.25), 0.25),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.bool_(False), 0.0),
    ],
    ids=repr,
)
def test_numbers_of_other_libraries_are_numbers(value: object, expected: float):
    assert reward(value, ImportRules(), as_row({})) == expected


def test_a_boolean_of_numpy_is_at_the_end_of_a_scale_as_pythons_is():
    assert rating(np.bool_(True), ImportRules(scale=(1, 5)), as_row({})) == 1.0

from pathlib import Path

import pytest
from tests.experience.importing.importing_rows import made_of, reason_of

from klimb.experience.feedback import Feedback
from klimb.experience.importing import RowError, import_rows
from klimb.experience.importing.cells import name_of, token_ids
from klimb.experience.importing.text_ids import with_whole_ids
from klimb.experience.store import Store


def test_a_rating_in_a_table_of_floats_is_of_the_sample_with_the_whole_number():
    """What pandas writes for a column of whole numbers of which one is missing."""
    (rating,) = made_of("feedback", {"completion_id": "12.0", "value": "1", "user_id": "7.0"}, is_text=True)
    (whole,) = made_of("feedback", {"completion_id": "12", "value": "1", "user_id": "7"}, is_text=True)
    assert isinstance(rating, Feedback) and isinstance(whole, Feedback)
    assert rating.sample_id == "12"
    assert rating.user == whole.user


def test_ids_of_json_stay_as_they_are():
    (rating,) = made_of("feedback", {"completion_id": "12.0", "value": 1})
    assert isinstance(rating, Feedback) and rating.sample_id == "12.0"


@pytest.mark.parametrize("nothing", ["nan", "NaN", "None", "null", "<NA>"])
def test_what_programs_write_for_a_missing_id_is_no_id_and_no_user(nothing: str, tmp_path: Path):
    table = tmp_path / "t.csv"
    table.write_text(f"id,prompt,response,user\n{nothing},a,x,{nothing}\n{nothing},b,y,{nothing}\n", encoding="utf-8")
    report = import_rows(store := Store(tmp_path / "store"), table, kind="table")
    assert report.tally.num_rows_in == 2
    assert report.tally.num_user_ids == 0
    assert all("user" not in sample.metadata and sample.sample_id != nothing for sample in store.samples())


def test_the_columns_are_found_under_the_files_own_names():
    changed = with_whole_ids({"ticket": "3.00", "score": "3.0"}, {"id": "ticket"})
    assert changed == {"ticket": "3", "score": "3.0"}


def test_an_id_that_was_rounded_is_refused():
    row = {"completion_id": "1.23457E+17", "value": "1"}
    with pytest.raises(RowError, match="lost digits"):
        made_of("feedback", row, is_text=True)
    assert reason_of("feedback", {"completion_id": 2.0**60, "value": 1}) == "an id that has lost digits"
    assert name_of(2.0**53) == "9007199254740992"


def test_bytes_that_are_no_text_are_an_id_in_hexadecimal_digits():
    assert name_of(b"\xff\x00") == "ff00"


def test_token_ids_that_became_floats_are_whole_numbers():
    assert token_ids([1.0, 2], what="ids") == (1, 2)
    with pytest.raises(RowError, match="no token ids"):
        token_ids([1.5], what="ids")
    with pytest.raises(RowError, match="no token ids"):
        token_ids([True], what="ids")

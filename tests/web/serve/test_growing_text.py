"""Growing text: what was given out is the beginning of what comes out in the end."""

import random

import pytest

from klimb.samplers.completion import cut_at_stop
from klimb.web.serve.growing_text import GrowingText


def bytes_text(ids) -> str:
    """Decode bytes as byte-level tokenizers do."""
    return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語のテキスト", "👩‍🚀 astronaut", ""])
def test_pieces_of_characters_wait_until_they_are_whole(text: str) -> None:
    growing = GrowingText(bytes_text)
    given = [growing.add(each) for each in text.encode()]
    assert "".join(given) + growing.finish() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in each for each in given)


def test_what_is_no_character_comes_out_at_the_end() -> None:
    growing = GrowingText(bytes_text)
    assert growing.add(0xFF) == ""
    assert growing.finish() == "\N{REPLACEMENT CHARACTER}"


def test_no_part_of_a_stop_string_is_given_out_and_nothing_behind_it() -> None:
    growing = GrowingText(bytes_text, stop=("END", "STOP"))
    given = [growing.add(each) for each in b"a E b EN"]
    assert "".join(given) == "a E b "
    assert "".join(growing.add(each) for each in b"D more") + growing.finish() == ""
    assert growing.text == "a E b "


def test_what_only_began_like_a_stop_string_is_given_out_in_the_end() -> None:
    growing = GrowingText(bytes_text, stop=("END",))
    given = "".join(growing.add(each) for each in b"WEEKEN")
    assert given == "WEEK"
    assert growing.finish() == "EN"


def test_any_answer_comes_out_as_if_it_were_decoded_at_once() -> None:
    chance = random.Random(0)
    for _ in range(200):
        text = "".join(chance.choice("ab é日.") for _ in range(chance.randrange(30)))
        stop = tuple("".join(chance.choice("ab.") for _ in range(chance.randrange(1, 4))) for _ in range(2))
        growing = GrowingText(bytes_text, stop=stop)
        given = "".join(growing.add(each) for each in text.encode()) + growing.finish()
        assert given == text[: cut_at_stop(text, stop)]


def test_the_tokenizers_own_spaces_stay(session_policy) -> None:
    ids = session_policy.tokenizer(" a  b\n", add_special_tokens=False)["input_ids"]
    growing = GrowingText(session_policy.decode)
    assert "".join(map(growing.add, ids)) + growing.finish() == " a  b\n"

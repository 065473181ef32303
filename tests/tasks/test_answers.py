import pytest

from klimb.tasks.answers import EXTRACTIONS, as_integer, last_number, verify_exact, verify_integer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7", "7"),
        ("The answer is 7.", "7"),
        ("**7**", "7"),
        ("it is -3", "-3"),
        ("= \u22123", "\u22123"),
        ("7-3", "3"),
        ("(1)-3", "3"),
        ("about 1,234 in all", "1,234"),
        ("1, 2, 3", "3"),
        ("3.5", "3.5"),
        ("\\boxed{-7}", "-7"),
        ("no number", None),
        ("", None),
        ("\u0667", None),  # an Arabic-Indic seven: str.isdigit would take it
    ],
)
def test_the_last_number_is_found_as_written(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("number", "integer"),
    [
        ("007", "7"),
        ("7.0", "7"),
        ("7.", "7"),
        ("-0", "0"),
        ("1,000", "1000"),
        ("\u22125", "-5"),
        ("+5", "5"),
        ("1e3", "1000"),
        ("2.50e1", "25"),
        ("10e-1", "1"),
        ("1 000", "1000"),
    ],
)
def test_spellings_of_an_integer_are_equal(number, integer):
    assert as_integer(number) == integer


@pytest.mark.parametrize("number", ["3.5", "x", "", ".5", "15e-1", "1e-3", "e3", "--1", "1e99999"])
def test_other_numbers_are_no_integers(number):
    assert as_integer(number) is None


@pytest.mark.parametrize(
    ("text", "is_right"),
    [("3+4 = 7", True), ("7, I think; no, 8", False), ("7.5", False), ("7.0", True), ("seven", False), ("-7", False)],
)
def test_an_integer_answer_must_be_the_last_number(text, is_right):
    assert verify_integer(text, "7").correct is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        (".5", "5", False),
        ("-.5", "-5", False),
        ("1e3", "3", False),
        ("1e3", "1000", True),
        ("It is 1.5e3.", "1500", True),
        ("1 000", "0", False),
        ("\u20135", "-5", True),
        ("3\u20135", "-5", False),
        ("1/2", "2", False),
        ("2 2/3", "3", False),
        ("3\u00bd", "3", False),
        ("2^5", "5", False),
        ("1:30", "30", False),
        ("6/3 = 2", "2", True),
        ("x^2", "2", True),
        ("= 12 345.", "12345", True),
        ("1\u202f000 of them", "1000", True),
        ("first 5 100 times", "100", True),
        ("No.5", "5", True),
        ("15e-1", "1", False),
        ("7 and 3e", "3", True),
        ("1'000", "1000", True),
        ("1'000", "0", False),
        ("1.000,50", "50", False),
        ("1.000,00", "1000", True),
        ("1.000.000", "1000000", True),
        (r"$1{,}000$", "1000", True),
        (r"$10,\!000$", "10000", True),
        (r"$1\,000$", "0", False),
    ],
)
def test_a_part_of_a_number_is_not_the_number(text, answer, is_right):
    assert verify_integer(text, answer).correct is is_right


def test_an_integer_of_a_million_digits_is_compared_and_not_shown_in_full():
    digits = "9" * 1_000_000
    assert verify_integer(f"It is {digits}", digits).correct
    assert len(verify_integer(f"It is {digits}", "7").reason) < 100


def test_exact_ignores_white_space_around_the_response_and_nothing_else():
    assert verify_exact(" Paris\n", "Paris").correct
    assert not verify_exact("paris", "Paris").correct
    assert not verify_exact("Paris.", "Paris").correct


def test_extractions_cut_out_what_they_say():
    text = "Let me see: 3\n<answer> 4 </answer>\n<answer>5\n</answer>\n So 6.\n\n"
    cut = {name: extract(text) for name, extract in EXTRACTIONS.items()}
    assert cut == {"text": text.strip(), "last-line": "So 6.", "last-number": "6", "answer-tag": "5"}


def test_extractions_of_nothing_are_empty():
    assert {extract("") for extract in EXTRACTIONS.values()} == {""}

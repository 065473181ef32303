import pytest

from klimb.tasks.math_notation import NO_NUMBER, as_formula, rewrite_notation


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\u22125", "-5"),
        ("= +5", "= 5"),
        ("\u20145", "-5"),
        ("3 +4", "3 +4"),
        ("2 2/3", "8/3"),
        ("1 000 4/9", "9004/9"),
        ("2\u00bd", "5/2"),
        ("\u2212\u00bd", "-1/2"),
        ("1e3", "1000"),
        ("2\u00d710\u00b3", "2000"),
        ("2 x 10^-3", "0.002"),
        (r"2\times 10^{3}", "2000"),
        ("2^3*10^2", "2^3*10^2"),
        (r"1\,000", "1000"),
        ("1'000", "1000"),
        ("12\u2019345\u2019678", "12345678"),
        ("f'(3)", "f'(3)"),
        ("1_000", "1000"),
        ("1.000,50", "1000.50"),
        ("1.000.000", "1000000"),
        ("1.000", "1.000"),
        ("1,000.50", "1,000.50"),
        ("\u20ac5", "5"),
        ("5 \u20ac", "5"),
        (r"\$5", "5"),
        ("x\u00b2", "x^{2}"),
        ("10 m\u00b2", "10"),
        ("3m\u00b2 + 1", "3m^{2} + 1"),
        ("\u221a2", r"\sqrt{2}"),
        ("\u0661\u0662", "12"),
        ("\ufeff5", "5"),
        ("\u7b54\u6848\u662f5", "\u7b54\u6848\u662f 5"),
    ],
)
def test_a_number_is_rewritten_with_the_value_that_people_mean(written, read):
    assert rewrite_notation(written) == read


@pytest.mark.parametrize("written", ["4 4/0", "4 7/6", "1 000 0/0", "0/0", f"1 {'1' * 19}/{'2' * 19}"])
def test_what_is_no_number_leaves_no_part_that_passes_for_one(written):
    assert rewrite_notation(written) == NO_NUMBER


@pytest.mark.parametrize(
    ("written", "formula"),
    [
        ("x = 3 or x = 4", "x = 3, x = 4"),
        ("1, 2, and 3", "1, 2, 3"),
        ("{1, 2}", r"\{1, 2\}"),
        ("2*sqrt(3)", r"2*\sqrt{3}"),
        ("orbit", "orbit"),
        (r"\sin x", r"\sin x"),
    ],
)
def test_a_formula_without_latex_gets_what_latex_needs(written, formula):
    assert as_formula(written) == formula

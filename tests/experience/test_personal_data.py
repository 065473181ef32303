"""Mail addresses, phones, cards and accounts are found; numbers that are none of them are left alone."""

import time

import pytest

from klimb.experience.personal_data import find_personal, redact

FOUND = {
    "write to jane.doe+list@mail.example.co.uk, please": "write to [mail], please",
    "mailto:kim@kunde.example": "mailto:[mail]",
    "müller@straße.de": "[mail]",
    "a@b.io or c@d.org": "[mail] or [mail]",
    "+1 415 555 0132": "[phone]",
    "dial +49 (0)30 901820.": "dial [phone].",
    "tel:+33123456789": "tel:[phone]",
    "0049 30 901820": "[phone]",
    "(415) 555-2671 or 415.555.2671": "[phone] or [phone]",
    "1-415-555-2671": "[phone]",
    "0171/2345678": "[phone]",
    "01 23 45 67 89": "[phone]",
    "call me on 07911 123456, thanks": "call me on [phone], thanks",
    "my phone number is 4155552671": "my phone number is [phone]",
    "call 555-0199": "call [phone]",
    "手机 13812345678": "手机 [phone]",
    "card 4111 1111 1111 1111, exp 12/27": "card [card], exp 12/27",
    "5500-0000-0000-0004": "[card]",
    "378282246310005": "[card]",
    "my card no. 4111111111111111": "my card no. [card]",
    "order by phone: 415-555-2671": "order by phone: [phone]",
    "DE89 3704 0044 0532 0130 00 and more": "[iban] and more",
    "FR14 2004 1010 0505 0001 3M02 606 THANKS": "[iban] THANKS",
    "to GB82WEST12345698765432.": "to [iban].",
}


@pytest.mark.parametrize("text", FOUND)
def test_personal_data_is_replaced_and_the_rest_stays(text: str):
    assert redact(text) == FOUND[text]


LEFT = (
    "order number: 4111111111111111",
    "your order #00234-99812-1 was sent",
    "order no. 415-555-2671",
    "tracking 1Z999AA10123456784",
    "it costs 1,234,567.89 dollars, $1 234 567 890 or 1 234 567 890 €",
    "2024-01-15 10:30:00",
    "15.01.2024 - 17.01.2024",
    "call log of 2024-01-15 10:30",
    "the call lasted from 01.02.2024 to 03.04.2024",
    "pi is 3.14159265358979, the change +3.1415926535, x = 0.123456789",
    "1/3 + 12345678 = 12345679 and a+441234567890",
    "123456789 * 987654321 = 121932631112635269",
    "12 345 678 people in 10 20 30 40 50 60 70 rooms",
    "[1000, 2000, 3000], 100 200 300 400",
    "0x7fffffff, 2147483648, 1700000000",
    "550e8400-e29b-41d4-a716-446655440000",
    "ISBN 0-306-40615-2 and 978-3-16-148410-0",
    "SELECT * FROM t WHERE id=4155552671",
    "Q@K.transpose(-1, -2) and x@y.T",
    "@app.route('/x')\ndef f(): ...",
    "git@github.com:owner/name.git",
    "icon@2x.png and react@18.2.0",
    "192.168.100.200 runs 10.0.19045.3570",
    "9999 9999 9999 9999",
    "4111 1111 1111 1112",
    "DE89 3704 0044 0532 0130 01",
    "AB12 CD34 EF56 GH78 IJ90",
    "+1 000 000 000",
)


@pytest.mark.parametrize("text", LEFT)
def test_orders_prices_dates_mathematics_and_code_are_left_alone(text: str):
    assert find_personal(text) == {}
    assert redact(text) is text


def test_a_card_has_its_check_digit_of_luhn_worked_out_by_hand():
    """4111 1111 1111 1111: every second digit doubled is 8 + 7·2 = 22, the others are 8 · 1 = 8: together 30."""
    assert find_personal("4111 1111 1111 1111") == {"card": 1}
    assert all(not find_personal(f"4111 1111 1111 111{digit}") for digit in (0, *range(2, 10)))


def test_each_kind_is_counted_once_where_it_stands_and_nothing_is_counted_as_two():
    text = "a@b.org, +1 415 555 0132, Telefon: 0171 2345678, 4111 1111 1111 1111 and DE89370400440532013000, c@d.org"
    assert find_personal(text) == {"mail": 2, "phone": 2, "card": 1, "iban": 1}


def test_what_was_replaced_is_not_found_again():
    text = "\n".join(FOUND)
    assert find_personal(text)
    assert find_personal(redact(text)) == {}


@pytest.mark.parametrize(
    "text",
    ["1 " * 20_000, "a" * 50_000 + "@", "a.a@" * 10_000, "1" * 50_000, "(1-" * 10_000, "A1" * 20_000, "12 34 " * 8_000],
)
def test_a_long_text_takes_time_that_grows_with_its_length_alone(text: str):
    start = time.perf_counter()
    find_personal(text)
    assert time.perf_counter() - start < 20  # a search that backtracks takes hours

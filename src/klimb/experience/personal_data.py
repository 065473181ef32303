"""Personal data in texts: mail addresses, phone numbers, payment cards and bank accounts, found and replaced.

What is found is what can be checked: a card by its issuer, length and check digit, an account by its country's length
and check digits, a phone number by the numbering plans of `phonenumbers`. Names and street addresses are not found.
A number that carries no sign of being a phone (a +, a trunk zero in groups, the North American 3-3-4, a word such as
`call` before it) is left alone: order numbers, prices, dates, mathematics and code are full of digits.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

import phonenumbers
from phonenumbers import NumberParseException

KINDS = ("mail", "phone", "card", "iban")
"""What is found; `redact` writes each in square brackets."""


Span = tuple[int, int, str]
"""Where it begins, where it ends, its kind."""


def find_personal(text: str) -> Counter[str]:
    """Return how many of each kind the text holds; kinds without any are not there.

    >>> find_personal("write to ada@lovelace.org or call +44 20 7946 0958")
    Counter({'mail': 1, 'phone': 1})
    """
    return Counter(kind for _, _, kind in spans_of_personal(text))


def redact(text: str) -> str:
    """Return the text with `[mail]`, `[phone]`, `[card]` and `[iban]` in place of what was found.

    >>> redact("write to ada@lovelace.org")
    'write to [mail]'
    """
    spans = spans_of_personal(text)
    if not spans:
        return text
    parts: list[str] = []
    end_before = 0
    for start, end, kind in spans:
        parts += [text[end_before:start], f"[{kind}]"]
        end_before = end
    return "".join([*parts, text[end_before:]])


def spans_of_personal(text: str) -> list[Span]:
    """Return what was found, in the order of the text; no two overlap."""
    candidates = [_mails(text)] if "@" in text else []
    # Most texts have no seven digits in one place and are done here.
    if _DIGITS.search(text) is not None:
        candidates += [_ibans(text), _cards(text), _phones(text)]
    if not candidates:
        return []
    found: list[Span] = []
    is_taken = bytearray(len(text))
    for start, end, kind in chain.from_iterable(candidates):
        if not any(is_taken[start:end]):
            found.append((start, end, kind))
            is_taken[start:end] = b"\1" * (end - start)
    return sorted(found)


# Mail addresses.

_MAIL = re.compile(
    r"(?<![\w.%+\-/])[\w](?:[\w.%+\-]{0,62}[\w+\-])?@(?:[\w](?:[\w\-]{0,61}[\w])?\.){1,8}(?P<top>[^\W\d_]{2,24})(?![\w(\[@])"
)
"""A top-level domain has letters alone; what is called or indexed behind it is code (`Q@K.transpose(0, 1)`)."""


_NO_TOP = re.compile(
    r"png|jpe?g|gif|svg|webp|ico|pdf|[jt]s|css|html|json|py|md|txt|csv|xml|zip|ya?ml|toml", re.IGNORECASE
)
"""Ends of file names: `icon@2x.png` is no address."""


def _mails(text: str) -> Iterator[Span]:
    for match in _MAIL.finditer(text):
        is_remote_shell = match.group().startswith("git@")
        if _NO_TOP.fullmatch(match["top"]) is None and not is_remote_shell:
            yield match.start(), match.end(), "mail"


# Numbers.

_DIGITS = re.compile(r"\d(?:[\s().\-/–]{0,3}[A-Z0-9]{0,3}\d){6}")
"""Seven digits with no more between them than separators and, for accounts, letters: worth a closer look."""


_NAMED = re.compile(
    r"(?:order|invoice|ticket|tracking|reference|article|item|serial|model|version|build|isbn|issn|ean|upc|gtin|sku|id|ref"
    r"|bestell|rechnungs|auftrags|sendungs|kunden|artikel|serien|vorgangs|commande|facture|pedido|factura|заказ)"
    r"[\w\-]{0,12}\s{0,2}(?:number|num|no|nr|id|code|is|ist|lautet|est|es)?[\s.:#=№°'\"(]{0,4}$",
    re.IGNORECASE,
)
"""Right before a number: it is that of an order, an article or the like."""


def _is_named(text: str, start: int) -> bool:
    """Tell whether the words right before say what else the number is."""
    before = text[max(0, start - 40) : start]
    match = _NAMED.search(before)
    # A word begins here: `pr-ice` and `ma-il` hold none of them.
    return match is not None and not before[: match.start()][-1:].isalpha()


# Bank accounts: ISO 13616.

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}")


_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
        "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
        "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 "
        "SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
}
"""Characters of an account by country, from SWIFT's registry of ISO 13616."""


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match.group()[:2], 0)
        places = [place for place, character in enumerate(match.group()) if character != " "]
        if not 0 < length <= len(places):
            continue
        end = places[length - 1] + 1
        follows = text[match.start() + end : match.start() + end + 1]
        if _has_check_digits("".join(match.group()[place] for place in places[:length])) and not follows.isalnum():
            yield match.start(), match.start() + end, "iban"


def _has_check_digits(account: str) -> bool:
    """Tell whether the number made of the account, letters as 10 to 35 and its first four last, is 1 modulo 97."""
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


# Payment cards: ISO 7812.

_CARD = re.compile(r"(?<![\w.,\-/+$€£])\d(?:[ \-]?\d){12,18}(?![\w]|[.,\-/]\d)")


_ISSUERS = re.compile(
    r"(?:4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15})"
)
"""Visa, Mastercard (two ranges), American Express, Discover, Diners, JCB, UnionPay, Maestro: prefix and length."""


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if not (_ISSUERS.fullmatch(digits) and _has_luhn_digit(digits)):
            continue
        if not _is_named(text, match.start()):
            yield match.start(), match.end(), "card"


def _has_luhn_digit(digits: str) -> bool:
    """Tell whether the sum of digits, every second from the right doubled and 9 taken off from 10 on, ends in 0."""
    doubled = [2 * int(digit) - 9 * (digit > "4") for digit in digits[-2::-2]]
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


# Phone numbers: ITU E.164 and the national plans.

_PLUS = re.compile(
    r"(?<![\w)+.^=*/#\-])(?<!\d )(?:\+|00(?=[1-9]))[ ]?\(?[1-9](?:[ ().\-/–]{0,3}\d){6,14}(?![\w]|[.,]\d)"
)


_DECIMAL = re.compile(r"\+?\d{1,3}\.\d+|\+\d{1,3}(?: 000)+")
"""A signed decimal number, or a round one in groups."""


_GROUPED = re.compile(
    r"(?<![\w.,\-/+$€£#])(?:1[ .\-])?\(?\d{2,6}\)?(?:[ .\-/–]{1,3}\(?\d{2,8}\)?){1,5}(?![\w%€£]|[.,\-/]\d| ?[€£%])"
)
"""A number of several groups of digits, none of one digit but the 1 of North America."""


_NORTH_AMERICAN = re.compile(r"(?:1[ .\-])?\(?[2-9]\d\d\)?[ .\-]{1,2}[2-9]\d\d[ .\-]\d{4}")


_TRUNK = re.compile(r"\(?0[1-9]")


_ANY = re.compile(r"(?<![\w.,/+$€£#])\(?\d(?:[ ().\-/–]{0,3}\d){6,14}(?![\w%€£]|[.,]\d)")


_PHONE_WORDS = (
    r"(?:phone|tel(?:ephone?|efon\w*|efono)?|mobile?|cell|call|fax|whats?app|sms|text me|reach me|ring me|hotline"
    r"|handy\w*|ruf\w*|anruf\w*|portable|t[ée]l[ée]phone|appele\w*|tel[ée]fono|m[óo]vil|celular|llam\w+|телефон\w*|тел"
    r"|звон\w+|电话|電話|手机|手機|携帯|전화)"
)


_SPEAKS_OF_PHONES = re.compile(_PHONE_WORDS, re.IGNORECASE)


_ASKED_FOR = re.compile(
    _PHONE_WORDS
    + r"(?:\W{0,4}(?:is|ist|number|no|nr|nummer|num[ée]ro|me|us|him|her|them|at|on|unter|an|mich|au|al|est|es|my|under"
    r"|back|line|office|home|work|番号|号码)){0,4}\W{0,4}$",
    re.IGNORECASE,
)
"""Right before a number: a phone is spoken of."""


_DATE = re.compile(
    r"(?:\b|^)(?:(?:19|20)\d\d[ \-./]\d{1,2}[ \-./]\d{1,2}|\d{1,2}[\-./]\d{1,2}[\-./](?:19|20)\d\d)(?:\b|$)"
)


_WITH_TRUNK_ZERO = (
    "DE",
    "GB",
    "FR",
    "IT",
    "NL",
    "BE",
    "CH",
    "AT",
    "SE",
    "FI",
    "IE",
    "AU",
    "NZ",
    "ZA",
    "JP",
    "TR",
    "IN",
)
"""Regions whose numbers begin with 0 at home."""


_OTHERS = ("US", "ES", "PT", "PL", "DK", "NO", "BR", "MX", "CN", "RU", "KR", "SG")


def _phones(text: str) -> Iterator[Span]:
    for match in _PLUS.finditer(text):
        if _is_international(match.group()) and not _is_named(text, match.start()):
            yield match.start(), match.end(), "phone"
    for match in _GROUPED.finditer(text):
        if _is_national(match.group()) and not _is_named(text, match.start()):
            yield match.start(), match.end(), "phone"
    if _SPEAKS_OF_PHONES.search(text) is None:
        return
    for match in _ANY.finditer(text):
        if _ASKED_FOR.search(text[max(0, match.start() - 48) : match.start()]) and _could_be(match.group()):
            yield match.start(), match.end(), "phone"


def _is_international(number: str) -> bool:
    """Tell whether it is a number of some country's plan; one that is written in groups need only have its length."""
    if _DECIMAL.fullmatch(number):
        return False
    parsed = _parse(re.sub(r"^00", "+", number.replace("(0)", "")), "ZZ")
    if parsed is None:
        return False
    in_groups = len(re.findall(r"\d+", number)) > 2
    return phonenumbers.is_valid_number(parsed) or (in_groups and phonenumbers.is_possible_number(parsed))


def _is_national(number: str) -> bool:
    """Tell whether its form is that of a phone number, and some country has it."""
    if _DATE.search(number) is not None or not 9 <= len(re.sub(r"\D", "", number)) <= 13:
        return False
    if _NORTH_AMERICAN.fullmatch(number):
        return _is_valid_in(number, ("US",))
    return _TRUNK.match(number) is not None and _is_valid_in(number, _WITH_TRUNK_ZERO)


def _could_be(number: str) -> bool:
    """Tell whether a number that a phone was spoken of before has the length of one, and is no date."""
    if _DATE.search(number) is not None:
        return False
    regions = ("US", *_WITH_TRUNK_ZERO, *_OTHERS)
    return any(parsed is not None and phonenumbers.is_possible_number(parsed) for parsed in _parsed_in(number, regions))


def _is_valid_in(number: str, regions: tuple[str, ...]) -> bool:
    return any(parsed is not None and phonenumbers.is_valid_number(parsed) for parsed in _parsed_in(number, regions))


def _parsed_in(number: str, regions: tuple[str, ...]) -> Iterator[phonenumbers.PhoneNumber | None]:
    return (_parse(number, region) for region in regions)


def _parse(number: str, region: str) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(number, region)
    except NumberParseException:
        return None

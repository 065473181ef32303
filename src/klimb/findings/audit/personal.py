"""Personal data that nobody wants a model to learn by heart."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from klimb.experience.personal_data import find_personal
from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import counted, percent
from klimb.findings.audit.report import Block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding

PERSONAL = "personal data"


_NOUNS = {"mail": "mail address", "phone": "phone number", "card": "card number", "iban": "bank account"}


def personal_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Return how many samples hold mail addresses, phone numbers, cards or accounts, in prompt, response or results."""
    step = math.ceil(len(samples) / thresholds.personal_rows)
    searched = samples[::step]
    found = [kinds for kinds in map(_kinds_of, searched) if kinds]
    kinds = Counter(kind for each in found for kind in each)
    named = ", ".join(f"{counted(number, 'sample')} with a {_NOUNS[kind]}" for kind, number in kinds.most_common())
    share = len(found) / len(searched)
    of = f"{len(found):,} of {counted(len(searched), 'sample')}" + (" that were looked at" if step > 1 else "")
    finding = Finding(
        name=PERSONAL,
        evidence=f"{of}{f': {named}' if named else ''}",
        status="warning" if found else "good",
        title=(
            "a model may learn them by heart and say them to others: import again with klimb import --redact"
            if found
            else "names and street addresses are not searched for"
        ),
        threshold=f"none, {percent(0.0)}",
        source="phone numbers by phonenumbers' plans, cards by ISO 7812, accounts by ISO 13616",
        advice="klimb import FILE --into NEW --redact" if found else "",
        number=share,
    )
    return Block(name="personal", title="Personal data in the texts", findings=(finding,))


def _kinds_of(sample: Sample) -> frozenset[str]:
    return frozenset(kind for text in _texts_of(sample) for kind in find_personal(text))


def _texts_of(sample: Sample) -> Iterator[str]:
    for message in sample.prompt:
        yield message["content"]
    yield sample.response
    for turn in sample.turns:
        if not turn.is_drawn:
            yield turn.text

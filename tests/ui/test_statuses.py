"""Every status has one look, which no colour is needed to tell from the others."""

from klimb.findings.finding import STATUSES
from klimb.ui.statuses import LOOKS


def test_every_status_has_a_look_in_the_order_of_what_to_read_first():
    assert tuple(LOOKS) == STATUSES


def test_signs_words_and_styles_tell_statuses_apart():
    for part in ("sign", "word", "style"):
        assert len({getattr(look, part) for look in LOOKS.values()}) == len(STATUSES)

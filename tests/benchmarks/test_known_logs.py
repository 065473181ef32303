"""Logs of known truth: they are what they are said to be, and the first screen tells them apart."""

import pytest

from benchmarks.known_logs import EXPECTED, NUM_FEW, answer_of, enough, few, shuffled
from klimb.findings.audit import audit

SEED = 5000


def test_the_logs_differ_in_what_they_are_for():
    log = enough(SEED)
    assert 400 < len(log) < 500 and len({sample.group_id for sample in log}) == 300
    assert len(few(SEED)) == NUM_FEW
    dealt = shuffled(SEED)
    assert sorted(s.reward for s in dealt) == sorted(s.reward for s in log)
    assert [s.response for s in dealt] == [s.response for s in log]
    assert sum(a.reward != b.reward for a, b in zip(dealt, log, strict=True)) > 150


@pytest.mark.parametrize(("maker", "expected"), [*zip((enough, few, shuffled), EXPECTED.values(), strict=True)])
def test_the_first_screen_says_what_is_true(maker, expected: str):
    assert answer_of(audit(maker(SEED))) == expected

"""Samples with personal data are counted by kind, and the way to replace it is named."""

from dataclasses import replace

from tests.findings.audit.fabricated import made

from klimb.experience.samples import Turn
from klimb.findings.audit import Thresholds
from klimb.findings.audit.personal import personal_block


def found_in(samples, limits: Thresholds | None = None):
    return personal_block(samples, limits or Thresholds()).findings[0]


def test_each_sample_counts_once_a_kind_wherever_it_stands():
    samples = [
        made(0, prompt="I am ann@mail.example, and bob@mail.example too"),
        made(1, response="call +44 20 7946 0958 or write to c@d.org"),
        made(2, response="order 12345678 of 2024-01-02"),
    ]
    found = found_in(samples)
    assert (found.status, found.number) == ("warning", 2 / 3)
    assert found.evidence == "2 of 3 samples: 2 samples with a mail address, 1 sample with a phone number"
    assert "--redact" in found.advice


def test_what_a_tool_answered_is_searched_too():
    turns = (
        Turn(role="tool", text="owner: c@d.org", num_tokens=2),
        Turn(role="assistant", text="an answer", num_tokens=1),
    )
    assert found_in([replace(made(), turns=turns, log_mu=(-1.0,))]).number == 1.0


def test_texts_without_any_are_good_and_say_what_was_not_looked_for():
    found = found_in([made(n) for n in range(4)])
    assert (found.status, found.number, found.advice) == ("good", 0.0, "")
    assert "names" in found.title


def test_of_many_samples_some_are_looked_at():
    found = found_in([made(n, response="c@d.org") for n in range(10)], Thresholds(personal_rows=5))
    assert found.evidence.startswith("5 of 5 samples that were looked at")

"""An audit of conversations reads drawn tokens: what was put in has no log-probability and is no neighbour."""

from dataclasses import replace

import pytest
from tests.findings.audit.fabricated import END, made

from klimb.experience.samples import Sample, Turn
from klimb.findings.audit import audit
from klimb.findings.audit.alignment import check_alignment, first_token_conflicts, shift_test
from klimb.findings.audit.contamination import found_in_part
from klimb.findings.audit.coverage import nearest_similarity
from klimb.findings.audit.evidence import pair_up
from klimb.findings.audit.lengths import length_block
from klimb.findings.audit.thresholds import Thresholds

THRESHOLDS = Thresholds()
IDS = (11, 12, END, 90, 91, 92, 13, 14, 15, END)
TURNS = (
    Turn(role="assistant", text="ab", num_tokens=3, finish_reason="stop"),
    Turn(role="tool", text="out of the tool", num_tokens=3, name="look"),
    Turn(role="assistant", text="cde", num_tokens=4, finish_reason="stop"),
)
LOG_MU = (-1.0, -3.0, -0.2, -2.0, -0.7, -4.0, -0.1)
LETTERS = {11: "a", 12: "b", 13: "c", 14: "d", 15: "e", END: "", 90: "<", 91: "|", 92: ">"}


def talk(number: int = 0, **fields: object) -> Sample:
    whole = {"turns": TURNS, "metadata": {"ended": "over"}, "log_mu": LOG_MU, "log_mu_provenance": "sampler", **fields}
    return replace(made(number, ids=IDS, response="ab\n\ncde", log_mu=None), **whole)


def decode(ids) -> str:
    return "".join(LETTERS[token] for token in ids)


def finding(block, name):
    return next(each for each in block.findings if each.name == name)


def test_tokens_are_paired_with_the_scores_of_drawn_ones():
    pairs = pair_up([talk()], [tuple(value - 0.5 for value in LOG_MU)])
    assert pairs.log_w.tolist() == pytest.approx([-0.5] * 7)
    assert pairs.lengths.tolist() == [7] and pairs.num_neighbours.tolist() == [5]
    assert pairs.opens.tolist() == [True, False, False, True, False, False, False]
    with pytest.raises(ValueError, match="10 scores for 7 drawn tokens"):
        pair_up([talk()], [(-1.0,) * 10])


def test_a_turn_begins_without_a_neighbour_so_that_values_moved_within_each_turn_show():
    # Moved by one place within each turn; the value that falls off at the turn's end is anything.
    log_pi = (-9.0, *LOG_MU[:2], -9.0, *LOG_MU[3:6])
    test = shift_test(pair_up([talk()], [log_pi]), THRESHOLDS)
    assert test is not None
    assert test.errors[0] == pytest.approx(0.0) and test.place == -1


def test_single_answers_are_tested_as_one_turn():
    sample = made(log_mu=(-1.0, -2.0, -0.5))
    pairs = pair_up([sample], [(-1.0, -2.0, -0.5)])
    assert pairs.num_neighbours.tolist() == [2] and pairs.opens.tolist() == [True, False, False]


def test_conversations_in_order_are_good_and_their_faults_are_found():
    block = check_alignment([talk()], None, decode, THRESHOLDS).block
    assert finding(block, "one log-probability a token").status == "good"
    assert finding(block, "token ids decode to the text").number == 1
    ended = finding(block, "finished responses have their end token")
    assert ended.number == 1 and "2 turns" in ended.evidence
    marked = replace(talk(), response="ab<x>\n\ncde", turns=(replace(TURNS[0], text="ab<x>"), *TURNS[1:]))
    assert finding(check_alignment([marked], None, decode, THRESHOLDS).block, "token ids decode to the text").number
    other = replace(talk(), response="ab\n\ncdx", turns=(*TURNS[:2], replace(TURNS[2], text="cdx")))
    assert finding(check_alignment([other], None, decode, THRESHOLDS).block, "token ids decode to the text").number == 0


def test_a_turn_without_its_end_token_is_found_though_the_last_one_has_it():
    ids = (11, 12, 11, *IDS[3:])
    block = check_alignment([replace(talk(), response_ids=ids)], None, decode, THRESHOLDS).block
    assert finding(block, "finished responses have their end token").number == pytest.approx(1 / 2)


def test_first_tokens_are_compared_with_the_next_of_the_same_turn():
    one, other = talk(0), replace(talk(1), response_ids=(11, 13, *IDS[2:]))
    assert first_token_conflicts([one, other]) == (0, 2)
    moved = replace(other, log_mu=(-9.0, *LOG_MU[1:]))
    assert first_token_conflicts([one, moved])[0] == 2
    short = [
        replace(
            each,
            turns=(replace(TURNS[0], num_tokens=1), replace(TURNS[1], num_tokens=5), TURNS[2]),
            log_mu=LOG_MU[2:],
        )
        for each in (one, moved)
    ]
    # What follows the only token of a turn was put in: nothing to compare.
    assert first_token_conflicts(short) == (0, 0)


def test_lengths_are_of_drawn_tokens_and_a_limit_cuts_a_conversation():
    samples = [
        replace(talk(number), metadata={"ended": "max_turns" if number else "over"}, group_id=f"g{number}")
        for number in range(4)
    ]
    block = length_block(samples, THRESHOLDS)
    assert finding(block, "responses cut off").number == pytest.approx(3 / 4)
    figure = block.figures[0]
    assert max(figure.x) == 7


def test_an_evaluation_question_in_the_result_of_a_tool_is_found():
    question = "how many apples are in the three baskets of the old farmer today"
    leaked = replace(talk(), turns=(TURNS[0], replace(TURNS[1], text=f"page: {question}"), TURNS[2]))
    assert found_in_part([leaked], [question]) == ([0], 1)
    assert found_in_part([talk()], [question]) == ([], 1)


def test_a_fresh_answer_is_compared_with_the_first_turn():
    fresh = made(9, response="ab")
    assert nearest_similarity([talk()], [fresh]) == [1.0]


def test_a_whole_audit_of_conversations_has_no_broken_token():
    samples = [
        replace(talk(number), group_id=f"g{number // 4}", reward=float(number % 2), log_mu=LOG_MU)
        for number in range(16)
    ]
    report = audit(samples, data="x", log_pi=[LOG_MU] * 16, decode=decode)
    names = {each.name: each for block in report.blocks for each in block.findings}
    assert names["broken log-probabilities"].number == 0
    assert names["log-probabilities moved by one place"].status == "good"
    for example in report.verdict.examples:
        assert len(example.tokens) == len(example.log_mu) == 7

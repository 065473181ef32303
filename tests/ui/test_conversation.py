"""A conversation for people: words beside colours, counts of what is hidden, nothing that acts."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.ui.pages.folders import write_run
from tests.ui.pages.test_page import Page

from klimb.experience import Sample, ToolCall, Turn, write_samples
from klimb.training.run_folder import read_run
from klimb.ui.conversation import as_chat, asked_in, facts_of, said_in, tool_names
from klimb.ui.pages.run import report_page
from klimb.ui.pages.run_conversations import MOST_TURNS
from klimb.ui.terminal.store import LONGEST_TURN, print_sample
from klimb.workbench.loggers.completions import completions_table

SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
TURNS = (
    Turn(
        role="assistant",
        text="let me look",
        num_tokens=3,
        finish_reason="stop",
        seconds=0.25,
        calls=(ToolCall(name="look", arguments='{"what": "it"}'),),
    ),
    Turn(role="tool", name="look", text="no such thing", num_tokens=4, seconds=1.5, error="KeyError: it"),
    Turn(role="assistant", text="gone", num_tokens=2, finish_reason="length", reward=0.5),
)
TALK = Sample(
    sample_id="talk",
    group_id="g",
    prompt=({"role": "user", "content": "where is it?"},),
    prompt_ids=(1,),
    response="let me look\n\ngone",
    response_ids=tuple(range(9)),
    finish_reason="length",
    reward=0.5,
    turns=TURNS,
    tools=json.dumps([{"type": "function", "function": {"name": "look"}}]),
    metadata={"ended": "max_turns"},
)
SINGLE = replace(TALK, sample_id="single", response="gone", response_ids=(1, 2), turns=(), tools="", metadata={})


def shown(sample: Sample) -> str:
    file = StringIO()
    print_sample(Console(file=file, width=200, no_color=True), sample)
    return file.getvalue()


def test_what_was_drawn_is_told_from_what_was_put_in_by_a_word():
    first, second, third = said_in(TALK)
    assert (first.who, first.mark, first.facts) == ("assistant", "drawn", ("3 tokens", "0.25 s"))
    assert (second.who, second.mark, second.error) == ("tool look", "put in", "KeyError: it")
    assert third.facts == ("2 tokens", "reward 0.5", "cut off")
    assert first.calls == ('look({"what": "it"})',)
    assert [said.mark for said in asked_in(TALK)] == [""]


def test_calls_in_a_prompt_are_shown():
    calls = [{"type": "function", "function": {"name": "look", "arguments": {"a": 1}}}, {"odd": 1}]
    (said,) = asked_in(replace(TALK, prompt=({"role": "assistant", "content": "", "tool_calls": calls},)))
    assert said.calls == ('look({"a": 1})', '{"odd": 1}')


def test_facts_count_turns_and_calls_and_a_single_answer_has_none():
    assert dict(facts_of(TALK))["turns"] == "2 drawn, 1 put in; 1 call, 1 of them failed"
    assert dict(facts_of(TALK))["tools"] == "look"
    assert facts_of(SINGLE) == []


@pytest.mark.parametrize("tools", ["{", "[1]", '[{"function": 3}]', '{"a": 1}', '[{"name": 3}]', "[" * 100_000])
def test_schemas_that_nobody_can_read_stop_nothing(tools: str):
    assert set(tool_names(replace(TALK, tools=tools))) == {"not readable"}


def test_a_logger_gets_the_turns_behind_their_roles_and_a_single_answer_as_it_was():
    assert as_chat(TALK).splitlines() == [
        "assistant (drawn): let me look",
        "tool look (put in): no such thing",
        "assistant (drawn): gone",
    ]
    _, rows = completions_table(1, [TALK, SINGLE], {})
    assert rows[0][2] == as_chat(TALK) and rows[1][2] == "gone"


def test_the_terminal_shows_roles_marks_calls_errors_and_numbers():
    said = shown(TALK)
    for part in (
        "▶ assistant · drawn · 3 tokens · 0.25 s",
        'calls look({"what": "it"})',
        "· tool look · put in · 4 tokens · 1.5 s",
        "error: KeyError: it",
        "▶ assistant · drawn · 2 tokens · reward 0.5 · cut off",
        "5 drawn tokens of 9",
        "max_turns",
    ):
        assert part in said


def test_a_single_answer_looks_as_it_did():
    said = shown(SINGLE)
    assert "response\n  gone\n" in said
    assert "drawn" not in said and "turns" not in said and "length, 2 tokens" in said


def test_a_long_turn_is_shortened_with_a_count():
    long = replace(TALK, turns=(replace(TURNS[0], text="y" * (LONGEST_TURN + 1234)), *TURNS[1:]))
    said = shown(long)
    assert "1,234 more characters" in said and said.count("y") < LONGEST_TURN + 100
    assert "more characters" not in shown(TALK)


def test_nothing_in_a_conversation_steers_the_terminal():
    hostile = replace(
        TALK,
        turns=(
            replace(TURNS[0], text="a\x1b[2J\u202eb", calls=(ToolCall(name="\x1b]0;x\x07", arguments="\x1b[31m"),)),
            replace(TURNS[1], name="\x1b[1A", error="\x1b[2K\u200b", text="[red]x[/red]"),
            TURNS[2],
        ),
    )
    said = shown(hostile)
    assert not {"\x1b", "\u202e", "\u200b", "\x07"} & set(said)
    assert "[red]x[/red]" in said


def run_with(path: Path, *samples: Sample) -> Path:
    run = write_run(path)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [json.dumps(line | {"num_turns_mean": 2.0, "turn_limit_fraction": 0.9}) + "\n" for line in lines]
    (run / "metrics.jsonl").write_text("".join(rows))
    (run / "rollouts").mkdir()
    write_samples(run / "rollouts" / "step-000007.parquet", [replace(TALK, sample_id="an older one")])
    write_samples(run / "rollouts" / "step-000008.parquet", samples)
    return run


def test_a_report_shows_the_newest_conversations_with_roles_and_marks(tmp_path: Path):
    page = Page(report_page([read_run(run_with(tmp_path / "run", TALK, replace(TALK, sample_id="same group")))]))
    section = page.text.split("none was picked for how it reads. What the policy drew")[1]
    for part in ("let me look", "no such thing", 'look({"what": "it"})', "error: KeyError: it", "put in", "drawn"):
        assert part in section
    assert "2 drawn, 1 put in; 1 call, 1 of them failed" in section and "max_turns" in section
    assert "same group" not in page.text and "an older one" not in page.text
    assert page.values("class").count("turn drawn") == 2


def test_of_turns_that_are_samples_of_their_own_the_last_is_shown_with_what_came_before_in_its_prompt(tmp_path: Path):
    asked = TALK.prompt
    answer = {"role": "assistant", "content": "an earlier turn"}
    parts = [
        replace(SINGLE, sample_id=f"part-{number}", episode="e", prompt=(*asked, *[answer] * number))
        for number in range(3)
    ]
    other = replace(SINGLE, sample_id="other", episode="another one")
    record = read_run(run_with(tmp_path / "run", *parts, other))
    assert [sample.sample_id for sample in record.conversations] == ["part-2"]
    text = Page(report_page([record])).text
    assert text.count("an earlier turn") == 2 and "gone" in text


def test_a_long_turn_is_folded_without_script(tmp_path: Path):
    long = replace(TALK, turns=(TURNS[0], replace(TURNS[1], text="z" * 3000), TURNS[2]))
    html = report_page([read_run(run_with(tmp_path / "run", long))])
    assert "all 3,000 of 3,000 characters" in html and "z" * 3000 in html
    assert html.index("<details>", html.index("z" * 500)) < html.index("z" * 3000)


def test_hostile_conversations_neither_act_nor_hide(tmp_path: Path):
    hostile = replace(
        TALK,
        sample_id=SCRIPT,
        turns=(
            replace(TURNS[0], text=SCRIPT, calls=(ToolCall(name=SCRIPT, arguments=SCRIPT),), error="\u202e"),
            replace(TURNS[1], name=SCRIPT, text="\x1b[2J", error=SCRIPT),
            TURNS[2],
        ),
        tools=json.dumps([{"name": SCRIPT}]),
        metadata={"ended": SCRIPT, "environment_error": SCRIPT},
        reward_reason=SCRIPT,
    )
    page = Page(report_page([read_run(run_with(tmp_path / "run", hostile))]))
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert "[U+202E]" in page.text and "[U+001B][2J" in page.text
    assert [name for name, _ in page.attributes if name == "style" or name.startswith("on")] == []


def test_many_turns_are_bounded_and_counted(tmp_path: Path):
    turns = tuple(replace(TURNS[0], num_tokens=1) for _ in range(MOST_TURNS + 3))
    many = replace(TALK, turns=turns, response_ids=tuple(range(len(turns))))
    page = Page(report_page([read_run(run_with(tmp_path / "run", many))]))
    assert "3 more turns are in rollouts/" in page.text


def test_a_run_of_single_answers_has_no_such_part_and_its_rollouts_are_not_read(tmp_path: Path):
    run = write_run(tmp_path / "run")
    (run / "rollouts").mkdir()
    (run / "rollouts" / "step-000001.parquet").write_bytes(b"damaged")
    record = read_run(run)
    assert record.conversations == () and record.damage == ()
    assert 'id="conversations"' not in report_page([record])


def test_damaged_rollouts_are_said_and_the_rest_is_shown(tmp_path: Path):
    run = run_with(tmp_path / "run", TALK)
    (run / "rollouts" / "step-000008.parquet").write_bytes(b"damaged")
    record = read_run(run)
    assert record.conversations == ()
    assert any(note.startswith("rollouts/step-000008.parquet") for note in record.damage)

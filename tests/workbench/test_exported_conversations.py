"""What klimb exports it reads back as the same samples, conversations among them."""

import csv
import json
from dataclasses import replace

import pytest

from klimb.experience import Sample, SamplingSettings, ToolCall, Turn
from klimb.experience.importing import ImportRules, RowError
from klimb.experience.importing.registry import convert_row, guess_importer
from klimb.experience.reading.records import ReadLimits, Row
from klimb.experience.reading.sources import read_records
from klimb.experience.store import Store
from klimb.workbench.exporting import export_samples

SINGLE = Sample(
    sample_id="single",
    group_id="g",
    prompt=({"role": "user", "content": "2 + 3 = ?"},),
    prompt_ids=(1, 2),
    response="5",
    response_ids=(3, 4),
    finish_reason="stop",
    reward=1.0,
    reward_parts={"correct": 1.0},
    log_mu=(-0.1, -1e-17),
    log_mu_provenance="sampler",
    log_ref=(-0.2, -0.3),
    sampling=SamplingSettings(stop=("\n", "x")),
    policy_version=3,
    created_at=1700000000.125,
    metadata={"correct": "yes"},
    tokenizer="t",
)
TALK = replace(
    SINGLE,
    sample_id="talk",
    prompt=(
        {"role": "system", "content": "s"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "r", "name": "look"},
    ),
    response="a\n\nb",
    response_ids=(3, 7, 8, 4),
    turns=(
        Turn(
            role="assistant",
            text='<tool_call>{"name": "look"}</tool_call>',
            num_tokens=1,
            finish_reason="stop",
            seconds=0.5,
            reward=0.25,
            calls=(ToolCall(name="look", arguments='{"x": [1]}'),),
        ),
        Turn(role="tool", text="=1+1 \x1b[31m é", num_tokens=2, name="look", error="no such thing"),
        Turn(role="assistant", text="b", num_tokens=1, finish_reason="length"),
    ),
    tools='[{"type": "function", "function": {"name": "look"}}]',
    episode="e-1",
    metadata={"ended": "max_turns"},
)
BARE = Sample(
    sample_id="bare",
    group_id="h",
    prompt=({"role": "user", "content": "?"},),
    prompt_ids=(),
    response="=cmd",
    response_ids=(),
    finish_reason="unknown",
)
CUT = replace(SINGLE, sample_id="cut", support=tuple((token, token + 1) for token in SINGLE.drawn_ids))
MARKED = replace(BARE, sample_id="marked", response="'=cmd", reward_reason="''-1", metadata={"a": "=1"})
ALL = (SINGLE, TALK, BARE, MARKED, CUT)


def read_rows(path, kind: str) -> list[Sample]:
    """Samples of a file whose rows are guessed to be of this kind."""
    rows = [record for record in read_records(path, ReadLimits()) if isinstance(record, Row)]
    assert guess_importer(rows[0]).name == kind
    read = guess_importer(rows[0]).read
    found = [each for row in rows for each in convert_row(row, read, ImportRules(), kind=kind)]
    assert all(isinstance(each, Sample) for each in found)
    return [each for each in found if isinstance(each, Sample)]


def read_back(path) -> list[Sample]:
    return read_rows(path, "klimb")


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_what_was_exported_comes_back_as_the_same_samples(tmp_path, ending: str):
    store = Store(tmp_path / "store")
    store.append(ALL)
    path = tmp_path / f"all{ending}"
    assert export_samples(store, path) == len(ALL)
    assert sorted(read_back(path), key=lambda sample: sample.sample_id) == sorted(
        ALL, key=lambda sample: sample.sample_id
    )


def test_json_lines_have_messages_and_spans_and_single_answers_have_no_messages(tmp_path):
    store = Store(tmp_path / "store")
    store.append([SINGLE, TALK])
    export_samples(store, tmp_path / "all.jsonl")
    single, talk = map(json.loads, (tmp_path / "all.jsonl").read_text("utf-8").splitlines())
    assert "messages" not in single and single["turns"] == []
    assert [message["role"] for message in talk["messages"]] == [
        "system",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert talk["messages"][4] == {"role": "tool", "content": TALK.turns[1].text, "name": "look"}
    assert [turn["num_tokens"] for turn in talk["turns"]] == [1, 2, 1]


def test_a_cell_of_csv_holds_the_turns_as_json_and_is_no_formula(tmp_path):
    store = Store(tmp_path / "store")
    store.append([TALK, MARKED])
    export_samples(store, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        talk, marked = csv.DictReader(file)
    assert json.loads(talk["turns"])[1]["error"] == "no such thing"
    assert marked["response"] == "''=cmd"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"finish_reason": "dunno"}, "finish_reason is no word of klimb's"),
        ({"log_mu": [-1.0]}, "no sample as klimb exports it"),
        ({"log_mu": [0.5, -1.0]}, "a log-probability above 0"),
        ({"turns": [{"role": "tool", "text": "x", "num_tokens": 2, "calls": []}]}, "no sample as klimb exports it"),
        ({"turns": [{"role": "tool", "text": "x", "num_tokens": -2, "calls": []}]}, "a turn that there cannot be"),
        ({"turns": [{"role": "tool", "text": "x"}]}, "turns is not as klimb exports it"),
        ({"turns": "x"}, "turns is not as klimb exports it"),
        ({"sampling": {"top_p": 2}}, "settings of sampling that there cannot be"),
        ({"metadata": {"a": 1}}, "metadata is not as klimb exports it"),
        ({"response": None, "response_ids": [], "log_mu": None, "log_ref": None}, "no sample as klimb exports it"),
    ],
)
def test_a_row_that_was_changed_into_no_sample_is_rejected(tmp_path, changes, reason: str):
    store = Store(tmp_path / "store")
    store.append([SINGLE])
    export_samples(store, tmp_path / "all.jsonl")
    row = {**json.loads((tmp_path / "all.jsonl").read_text("utf-8")), **changes}
    with pytest.raises(RowError) as caught:
        convert_row(Row("x:1", row, json.dumps(row)), guess_importer(Row("x", row, "")).read, ImportRules(), kind="k")
    assert caught.value.reason == reason


def test_a_file_of_an_earlier_klimb_has_no_turns(tmp_path):
    store = Store(tmp_path / "store")
    store.append([SINGLE])
    export_samples(store, tmp_path / "all.jsonl")
    row = json.loads((tmp_path / "all.jsonl").read_text("utf-8"))
    older = {name: value for name, value in row.items() if name not in ("turns", "tools", "episode")}
    assert convert_row(Row("x:1", older, ""), guess_importer(Row("x", older, "")).read, ImportRules(), kind="k") == [
        SINGLE
    ]

"""Personal data is replaced in all that is kept of a row."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import openai_row, written

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.importing.redaction import redact_raw
from klimb.experience.store import Store

SECRET = "0123456789"


def redact(text: str) -> str:
    return text.replace(SECRET, "[number]")


RULES = ImportRules(redact=redact, sampling={"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def holds_secret(folder: Path) -> bool:
    return any(SECRET.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


ROW = {"id": "1", "prompt": "a", "response": "b", "reward": 1, "token_ids": [7], "log_probs": [-0.5]}


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": f"call {SECRET}"},
        {"response": f"call {SECRET}"},
        {"prompt": [{"role": "user", "content": f"call {SECRET}"}]},
    ],
)
def test_texts_are_replaced_and_their_tokens_go_with_a_note(store: Store, tmp_path: Path, change: dict[str, Any]):
    path = written(tmp_path / "a.jsonl", [{**ROW, **change}, {**ROW, "id": "2"}])
    report = import_rows(store, path, rules=RULES)
    assert report.tally.num_redacted == 1
    redacted, other = sorted(store.samples(), key=lambda sample: sample.sample_id)
    assert "[number]" in json.dumps([redacted.prompt, redacted.response])
    assert (redacted.response_ids, redacted.log_mu, redacted.log_mu_provenance) == ((), None, "absent")
    assert report.tally.notes == {redacted.metadata["log_mu_note"]: 1}
    assert (other.response_ids, other.log_mu_provenance) == ((7,), "sampler")
    assert SECRET not in redacted.raw and json.loads(redacted.raw)["id"] == "1"
    assert json.loads(redacted.raw)["token_ids"] is None, "tokens spell the text once more"
    assert json.loads(other.raw)["token_ids"] == [7]


def test_which_tokens_could_be_drawn_goes_with_the_tokens(store: Store, tmp_path: Path):
    masked = {"token_ids": [5], "sampling_mask": [[5, 9]], "message": {"role": "assistant", "content": f"is {SECRET}"}}
    import_rows(store, written(tmp_path / "a.jsonl", [openai_row(choice=masked)]), rules=RULES, kind="vllm")
    (sample,) = store.samples()
    assert (sample.support, sample.response_ids) == (None, ())
    assert json.loads(sample.raw)["response"]["choices"][0]["sampling_mask"] is None


def test_what_is_beside_the_texts_is_replaced_and_tokens_stay(store: Store, tmp_path: Path):
    row = openai_row(metadata={"note": SECRET}, other={"deep": [f"x {SECRET}"]})
    import_rows(store, written(tmp_path / "a.jsonl", [{**ROW, "note": SECRET}, row]), rules=RULES)
    samples = list(store.samples())
    assert all(SECRET not in repr(sample) for sample in samples)
    assert samples[0].response_ids == (7,)


def test_calls_turns_ratings_and_rejects_are_replaced(store: Store, tmp_path: Path):
    call = {"function": {"name": "dial", "arguments": json.dumps({"number": SECRET})}}
    said = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": SECRET},
        {"role": "assistant", "content": f"I called {SECRET}"},
    ]
    import_rows(store, written(tmp_path / "a.jsonl", [{"id": "1", "prompt": "a", "completion": said}]), rules=RULES)
    (sample,) = store.samples()
    assert json.loads(sample.turns[0].calls[0].arguments) == {"number": "[number]"}
    assert SECRET not in repr(sample)
    broken = {"completion_id": "1", "value": f"{SECRET}!"}
    rated = {"completion_id": "1", "value": 1, "comment": f"call {SECRET}"}
    report = import_rows(store, written(tmp_path / "b.jsonl", [rated, broken]), kind="feedback", rules=RULES)
    assert report.num_rejected == 1
    assert store.query("select comment from feedback").column("comment").to_pylist() == ["call [number]"]
    assert SECRET not in str(report.examples)
    assert report.reject_file is not None and SECRET not in report.reject_file.read_text(encoding="ascii")


def test_rows_that_differ_in_personal_data_alone_stay_two(store: Store, tmp_path: Path):
    rows = [{"prompt": text, "response": "b"} for text in (SECRET, "[number]")]
    path = written(tmp_path / "a.jsonl", rows)
    assert import_rows(store, path, rules=RULES).tally.num_rows_in == 2
    assert import_rows(store, path, rules=RULES).tally.num_rows_there == 2


def test_json_stays_json_and_text_without_personal_data_as_it_is():
    assert redact_raw('{"a":  1}', redact) == '{"a":  1}'
    assert redact_raw(json.dumps({"a": json.dumps([SECRET])}), redact) == json.dumps({"a": '["[number]"]'})
    assert redact_raw(f"{{broken {SECRET}", redact) == "{broken [number]"

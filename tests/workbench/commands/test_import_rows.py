import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from klimb.experience.importing import IMPORTERS
from klimb.experience.store import Store
from klimb.workbench.commands.import_rows import import_rows

app = App()
app.command(import_rows, name="import")


class Workplace:
    """A working directory, and `klimb import` in it."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path, self._capture = path, capture

    def write(self, name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.path / name).write_text(text, encoding="utf-8")
        return name

    def run(self, *arguments: str) -> str:
        """What the command printed, with single spaces."""
        return " ".join(" ".join(self.lines(*arguments)).split())

    def lines(self, *arguments: str) -> list[str]:
        """What it printed, line by line."""
        app(["import", *arguments], result_action="return_value")
        return self._capture.readouterr().out.splitlines()

    @property
    def store(self) -> Store:
        return Store(self.path / "store")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workplace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Workplace(tmp_path, capsys)


KTO = [{"prompt": "2 + 2?", "completion": "4", "label": True}, {"prompt": "2 + 2?", "completion": "5", "label": None}]


def openai_row(token: str = "4") -> dict[str, Any]:
    entry = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    choice = {"message": {"content": token}, "finish_reason": "stop", "logprobs": {"content": [entry]}}
    request = {"messages": [{"role": "user", "content": "2 + 2?"}], "temperature": 1}
    return {"request": request, "response": {"id": "c-1", "choices": [choice]}}


def test_it_prints_guess_map_counts_and_what_to_do_next(place: Workplace):
    shown = place.run(place.write("a.jsonl", KTO), "--into", "store")
    assert (
        "kind kto: prompt, completion and a label: good or bad; guessed: it has prompt, completion and label" in shown
    )
    assert "true and up → 1, false and down → 0" in shown
    assert "2 added, 0 were there already; 1 of 2 have a reward" in shown
    assert "log-probs 2 absent" in shown
    assert "klimb audit store" in shown
    assert "0 added, 2 were there already" in place.run("a.jsonl", "--into", "store", "--as", "kto")


def test_it_prints_rejects_by_reason_and_where_they_are(place: Workplace):
    bad = {"prompt": "\x1b[31m", "completion": "", "label": True}
    shown = place.run(place.write("a.jsonl", [*KTO, bad, bad, {**KTO[0], "label": "great"}]), "--into", "store")
    assert "rejected 3, in store/rejected/a.jsonl-1.jsonl" in shown
    assert "2 × no response a.jsonl:3: it is empty" in shown
    assert "1 × a rating that is text" in shown


def test_scales_maps_and_columns_are_taken_and_printed(place: Workplace):
    row = {"question": "2 + 2?", "answer": "4", "stars": 4}
    columns = ["--columns", "prompt=question", "response=answer", "reward=stars"]
    arguments = [place.write("a.jsonl", [row]), "--into", "store", "--as", "table", *columns]
    assert "1 to 5 → 0 to 1" in place.run(*arguments, "--scale", "1", "5")
    assert [sample.reward for sample in place.store.samples()] == [0.75]
    ratings = place.write("b.jsonl", [{"id": "x", "value": "good"}])
    assert "good → 1, bad → 0" in place.run(ratings, "--into", "store", "--map", "good=1", "bad=0")


def test_rewards_that_look_like_points_come_with_a_note_unless_a_scale_is_stated(place: Workplace):
    path = place.write("a.jsonl", [{"prompt": "a", "response": "b", "reward": 4}])
    note = "The rewards are whole numbers from 4 to 4 and were taken as they are"
    assert note in place.run(path, "--into", "store")
    assert note not in place.run(path, "--into", "scaled", "--scale", "1", "5")


def test_a_scale_below_zero_can_be_typed(place: Workplace):
    path = place.write("a.jsonl", [{"id": "x", "value": -1}, {"id": "y", "value": 1}])
    assert "-1 to 1 → 0 to 1" in place.run(path, "--into", "store", "--scale", "-1", "1")


def test_conflicts_come_with_what_to_do(place: Workplace):
    path = place.write("a.jsonl", [{"feedback_id": "f", "completion_id": "x", "value": 1}])
    place.run(path, "--into", "store")
    shown = place.run(path, "--into", "store", "--map", "1=0")
    assert "1 rows have an id that the store has with other content" in shown
    assert "import it into a new store: --into NEW. A person's later rating counts" in shown


def test_users_are_spoken_of_where_there_are_some(place: Workplace):
    row = {"prompt": "a", "response": "b"}
    assert "users none in these rows" in place.run(place.write("a.jsonl", [row]), "--into", "store")
    shown = place.run(place.write("b.jsonl", [{**row, "user": "ann"}]), "--into", "store")
    assert "users hashed; the salt is store/user-salt" in shown


def test_lines_end_at_the_width_and_a_path_stays_whole(place: Workplace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    folder = "a-store-with-a-name-" + "x" * 80
    bad = {"prompt": "a", "completion": "b", "label": "great"}
    shown = place.lines(place.write("a.jsonl", [*KTO, bad]), "--into", folder)
    long = [line.strip() for line in shown if len(line) > 80]
    assert long == [f"{folder}/rejected/a.jsonl-1.jsonl", f"klimb audit {folder}"]
    start = next(n for n, line in enumerate(shown) if line.startswith("rewards"))
    assert shown[start].startswith("rewards    true and up → 1") and shown[start + 1].startswith(" " * 11)


def test_ratings_whose_response_has_not_come_are_said_to_wait(place: Workplace):
    shown = place.run(place.write("a.jsonl", [{"id": "x", "value": 1}]), "--into", "store")
    assert "1 added, 0 were there already; 1 in the store wait for their response" in shown


def test_token_strings_come_with_advice_and_with_a_model_as_ids(place: Workplace, tiny_model_path: Path):
    path = place.write("a.jsonl", [openai_row()])
    assert "Name the model that wrote them (--model M)" in place.run(path, "--into", "other")
    shown = place.run(path, "--into", "store", "--model", str(tiny_model_path))
    assert "log-probs 1 sampler" in shown
    (sample,) = place.store.samples()
    assert (len(sample.response_ids), sample.log_mu, sample.finish_reason) == (1, (-0.5,), "unknown")
    assert len(sample.tokenizer) == 16
    assert "by their rows" not in shown


def test_a_model_of_another_name_than_the_logged_one_is_said(place: Workplace, tiny_model_path: Path):
    row = openai_row()
    row["response"]["model"] = "gpt-x"
    path = place.write("a.jsonl", [row])
    shown = place.run(path, "--into", "store", "--model", str(tiny_model_path))
    assert f"1 samples are of gpt-x, by their rows, and --model is {tiny_model_path}" in shown
    assert "their log_mu is of gpt-x" in shown
    row["response"]["model"] = f"somebody/{tiny_model_path.name.upper()}"
    path = place.write("a.jsonl", [row])
    assert "by their rows" not in place.run(path, "--into", "other", "--model", str(tiny_model_path))


def test_ids_beyond_the_models_vocabulary_are_rejected(place: Workplace, tiny_model_path: Path):
    row = {"prompt": "a", "response": "b", "token_ids": [10**6]}
    path = place.write("a.jsonl", [row, {**row, "token_ids": None}])
    assert "1 × a token id beyond the vocabulary" in place.run(path, "--into", "store", "--model", str(tiny_model_path))


def test_stated_sampling_makes_log_probs_usable(place: Workplace):
    row = {"prompt": "a", "response": "b", "token_ids": [5], "log_probs": [-0.5]}
    path = place.write("a.jsonl", [row])
    assert "--sampling temperature=1" in place.run(path, "--into", "other")
    shown = place.run(path, "--into", "store", "--sampling", "temperature=1", "top_p=1", "top_k=0", "min_p=0")
    assert "log-probs 1 sampler" in shown
    assert "do not state" not in shown
    warm = place.run(path, "--into", "warm", "--sampling", "temperature=0.7")
    assert "1 estimated (1 × raw log-probabilities, drawn with temperature 0.7)" in warm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", "good"], "--map takes NAME=VALUE"),
        (["--map", "good=fine"], "expected a number"),
        (["--map", "good=nan"], "finite"),
        (["--map", "good=1", "good=0"], "twice"),
        (["--sampling", "temprature=1"], "sampling settings are temperature"),
        (["--scale", "5", "1"], "from the lowest to the highest"),
        (["--as", "csv"], "--as must be one of"),
        (["--strict"], "a.jsonl:3"),
    ],
)
def test_what_cannot_be_meant_is_an_error(place: Workplace, arguments: list[str], message: str):
    path = place.write("a.jsonl", [*KTO, {"prompt": "a", "completion": "", "label": True}])
    with pytest.raises(ValueError, match=message):
        place.run(path, "--into", "store", *arguments)
    assert not list((place.path / "store").glob("*.parquet"))


def test_the_help_names_every_kind():
    (line,) = (line for line in (import_rows.__doc__ or "").splitlines() if line.strip().startswith("kind:"))
    named = line.partition(":")[2].partition(";")[0].replace(" or ", ", ")
    assert sorted(name.strip() for name in named.split(",")) == sorted(IMPORTERS)

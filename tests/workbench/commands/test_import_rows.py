import hashlib
import importlib
import json
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from klimb.errors import ConfigError
from klimb.experience.importing import IMPORTERS
from klimb.experience.store import Store
from klimb.workbench.cli import run_command
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
    assert "kind kto: a prompt, a response and a label: good or bad; guessed: it has a response and a label" in shown
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
    assert "import it into a new store: --into NEW." in shown


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


def test_without_a_model_no_tokenizer_is_said_to_be_taken(place: Workplace, tiny_model_path: Path):
    row = openai_row()
    row["response"]["model"] = "gpt-x"
    place.run(place.write("a.jsonl", [row]), "--into", "store", "--model", str(tiny_model_path))
    assert run_command(["experience", "export", "store", "--to", "again.jsonl"]) == 0
    shown = place.run("again.jsonl", "--into", "other")
    assert "samples that klimb exported" in shown and "by their rows" not in shown


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


def test_the_help_names_every_kind(capsys: pytest.CaptureFixture[str]):
    app(["import", "--help"], result_action="return_value")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"--as STR {', '.join(sorted(IMPORTERS))}, or python:module.name of your own" in shown


def test_the_names_of_importers_are_read_without_what_reads_files():
    code = "from klimb.experience.importing import IMPORTERS; import sys; print({'pyarrow', 'duckdb'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


OWN = """
from klimb.experience.importing import Importer, ParsedRow, RowError
from klimb.experience.importing.cells import messages
from klimb.experience.importing.rules import reward

def chat_export(row, rules):
    \"\"\"Question and answer of the house's own export.

    More words.
    \"\"\"
    if not row.values["a"]:
        raise RowError("no answer", "it is empty")
    stars = reward(row.values["stars"], rules, row)
    prompt = messages(row.values["q"], what="q")
    return [ParsedRow(prompt=prompt, response=row.values["a"], reward=stars, metadata={"shift": "night"})]

def rating_in(row):
    return "stars", row.values.get("stars")

rated = Importer(name="any", read=chat_export, summary="stars", rating_in=rating_in)

def shapeless(row, rules):
    made = ParsedRow(prompt=messages(row.values["q"], what="q"), response="4")
    object.__setattr__(made, "reward", "high")
    return [made]

def strings(row, rules):
    return [row.values["a"]]

number = 3
"""

ROWS = [{"q": "2 + 2?", "a": "4", "stars": 5}, {"q": "2 + 2?", "a": "", "stars": 1}, {"q": "2 + 2?", "stars": 1}]


@pytest.fixture
def own(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    (place.path / "my_importers.py").write_text(OWN, encoding="utf-8")
    place.write("a.jsonl", ROWS)
    yield place
    sys.modules.pop("my_importers", None)


def test_an_importer_of_ones_own_makes_samples_that_name_it_and_its_source(own: Workplace):
    name = "python:my_importers.chat_export"
    shown = own.run("a.jsonl", "--into", "store", "--as", name)
    assert f"kind {name}: Question and answer of the house's own export." in shown and "guessed" not in shown
    assert "rewards as your importer gives them" in shown
    (sample,) = own.store.samples()
    assert (sample.prompt[0]["content"], sample.response, sample.reward) == ("2 + 2?", "4", 5.0)
    source = hashlib.sha256((own.path / "my_importers.py").read_bytes()).hexdigest()[:16]
    assert sample.metadata == {"shift": "night", "imported_as": name, "importer_source": source}


def test_an_edited_importer_of_ones_own_is_another_reading_and_the_store_keeps_the_first(own: Workplace):
    name = "python:my_importers.chat_export"
    own.run("a.jsonl", "--into", "store", "--as", name)
    (first,) = own.store.samples()
    assert "0 added, 1 were there already" in own.run("a.jsonl", "--into", "store", "--as", name)
    (own.path / "my_importers.py").write_text(OWN.replace("night", "day"), encoding="utf-8")
    sys.modules.pop("my_importers")
    shown = own.run("a.jsonl", "--into", "store", "--as", name)
    assert "3 read = 0 came in + 3 were refused" in shown
    assert "1 rows have an id that the store has with other content" in shown and "--into NEW" in shown
    assert list(own.store.samples()) == [first]


def test_a_row_for_which_an_importer_of_ones_own_fails_is_put_aside_with_what_it_raised(own: Workplace):
    name = "python:my_importers.chat_export"
    shown = own.run("a.jsonl", "--into", "store", "--as", name)
    assert "1 × no answer a.jsonl:2: it is empty" in shown
    assert f"1 × {name} raised KeyError a.jsonl:3: 'a'" in shown
    with pytest.raises(ValueError, match=r"a.jsonl:2: no answer"):
        own.run("a.jsonl", "--into", "other", "--as", name, "--strict")


def test_an_importer_of_ones_own_may_say_what_it_rates(own: Workplace):
    with pytest.raises(ValueError, match="the rating 5 is not in 0 to 1"):
        own.run("a.jsonl", "--into", "store", "--as", "python:my_importers.rated")
    own.run("a.jsonl", "--into", "store", "--as", "python:my_importers.rated", "--scale", "1", "5")
    (sample,) = own.store.samples()
    assert (sample.reward, sample.metadata["imported_as"]) == (1.0, "python:my_importers.rated")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:no_such_file.one", "--as = 'python:no_such_file.one': there is no module 'no_such_file'"),
        ("python:my_importers.typo", "the module my_importers has no 'typo'"),
        ("python:my_importers.number", r"expected a function of \(row, rules\) that returns a list of ParsedRow"),
        (
            "python:my_importers.strings",
            "returned no ParsedRow; .* expected a list of ParsedRow, and one .* is str",
        ),
        ("python:my_importers.shapeless", "shapeless returned another reward; .* expected a number or None, got str"),
        ("python:alone", "--as must be one of klimb, .*, feedback or python:module.name, got 'python:alone'"),
    ],
)
def test_an_importer_of_ones_own_that_cannot_be_is_told(own: Workplace, name: str, message: str):
    with pytest.raises(ValueError, match=message):
        own.run("a.jsonl", "--into", "store", "--as", name)
    assert not list((own.path / "store").glob("*.parquet"))


ROW = {"prompt": "a", "response": "b", "reward": 1}


def test_where_each_row_went_is_one_line_whose_numbers_sum_up(place: Workplace):
    rows = [{**ROW, "id": name} for name in "aab"]
    broken = [{**ROW, "id": "b", "response": "c"}, {**ROW, "reward": "x"}]
    shown = place.run(place.write("a.jsonl", [*rows, *broken]), "--into", "store")
    assert "rows 5 read = 2 came in + 1 were there already + 2 were refused" in shown
    ratings = [{"id": name, "value": 1, "name": kind} for name in "ab" for kind in ("ok", "words")]
    shown = place.run(place.write("b.jsonl", ratings), "--into", "store", "--score-name", "ok")
    assert "rows 4 read = 2 came in + 2 ratings of another name than --score-name" in shown


def test_columns_that_were_not_used_are_named_those_of_all_rows_first(place: Workplace):
    rows = [{**ROW, "response": str(n), "rare": n or None, "whole": 1} for n in range(3)]
    path = place.write("a.jsonl", rows)
    assert "not used columns whole, rare (in 2 rows)" in place.run(path, "--into", "store")
    assert "not used" not in place.run(path, "--into", "other", "--ignore", "rare", "whole")
    many = [{**ROW, **{f"c{n}": 1 for n in range(20)}}]
    assert "c11 and 8 more" in place.run(place.write("b.jsonl", many), "--into", "many")


def test_several_files_a_folder_and_a_pattern_are_one_import(place: Workplace):
    (place.path / "logs").mkdir()
    names = [place.write(f"logs/{n}.jsonl", [{**ROW, "response": str(n)}]) for n in range(3)]
    for number, files in enumerate((names, ["logs"], ["logs/*.jsonl"])):
        assert "rows 3 read = 3 came in" in place.run(*files, "--into", f"store-{number}")
    with pytest.raises(ConfigError, match=r"there is nothing at logs/9\.jsonl"):
        place.run(names[0], "logs/9.jsonl", "--into", "store")
    with pytest.raises(ConfigError, match="give a file to import"):
        place.run("--into", "store")


def test_a_later_rating_is_said_and_counts(place: Workplace):
    place.run(place.write("a.jsonl", [{**ROW, "id": "1"}]), "--into", "store")
    shown = place.run(place.write("b.jsonl", [{**ROW, "id": "1", "reward": 0}]), "--into", "store")
    assert "rows 1 read = 1 came in" in shown and "1 of them with a later rating" in shown
    assert "The newest counts" in shown
    assert [sample.reward for sample in place.store.samples()] == [0.0]


def test_ids_by_content_and_sentences_under_user_are_said(place: Workplace):
    rows = [{**ROW, "id": "1", "response": name, "user": "Name a prime."} for name in "ab"]
    path = place.write("a.jsonl", rows)
    assert "If ids of the file are not unique, --ids content" in place.run(path, "--into", "store")
    shown = place.run(path, "--into", "other", "--ids", "content")
    assert "2 read = 2 came in" in shown
    assert "2 cells under the name of a user hold sentences and no ids" in shown


def test_personal_data_is_replaced_and_counted(place: Workplace, monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("klimb.experience.personal_data")
    module.__dict__["redact"] = lambda text: text.replace("ann@example.org", "[mail]")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = place.write("a.jsonl", [{**ROW, "prompt": "write to ann@example.org"}, ROW])
    assert "redacted 1 rows held personal data, which was replaced" in place.run(path, "--into", "store", "--redact")
    assert "[mail]" in place.store.query("select raw from samples").to_pylist()[0]["raw"]
    assert "redacted" not in place.run(path, "--into", "other")


def test_without_a_store_the_command_says_the_whole_line(place: Workplace):
    name = place.write("my log.jsonl", [{"prompt": "2 + 2?", "completion": "4"}])
    with pytest.raises(ConfigError, match=r"say where the rows go: klimb import 'my log.jsonl' --into store"):
        place.run(name)


def test_a_file_is_no_store(place: Workplace):
    name = place.write("log.jsonl", [{"prompt": "2 + 2?", "completion": "4"}])
    with pytest.raises(ConfigError, match=r"log\.jsonl is a file, and a store is a folder"):
        place.run(name, "--into", name)


def test_an_unrated_log_beside_an_unused_column_of_thumbs_says_how_to_read_it(place: Workplace):
    request = {"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}]}
    response = {"id": "c", "choices": [{"message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}]}
    name = place.write("log.jsonl", [{"request": request, "response": response, "thumb": "up"}])
    assert "thumb was not used. If it holds the ratings" in place.run(name, "--into", "store")
    rated = place.run(name, "--into", "other", "--columns", "reward=thumb")
    assert "1 of 1 have a reward" in rated and "was not used" not in rated


def test_rows_of_another_encoding_are_an_advice_of_their_own(place: Workplace):
    text = "question,answer\nИщи мышь,Жми\n2 + 2?,4\n"
    (place.path / "log.csv").write_bytes(text.encode("windows-1251"))
    shown = place.run("log.csv", "--into", "store")
    assert "2 read = 1 came in + 1 were refused" in shown
    assert "1 rows are not UTF-8 and were left out" in shown and "--into NEW" in shown

"""A log of conversations that is text alone, from the file to log-probabilities: import, show, score, audit, export."""

import json

import pytest
from cyclopts import App
from tests.experience.importing.importing_rows import written

from klimb.experience.store import open_store
from klimb.workbench.commands.audit import audit
from klimb.workbench.commands.experience import experience
from klimb.workbench.commands.import_rows import NAME, import_rows

TALKS = [
    {
        "id": f"talk-{number}",
        "messages": [
            {"role": "user", "content": f"say {number // 2}"},
            {"role": "assistant", "content": "what?"},
            {"role": "user", "content": "it"},
            {"role": "assistant", "content": f"it is {number}"},
        ],
        "reward": number % 2,
        "model": "m",
    }
    for number in range(6)
]


@pytest.fixture
def run(tmp_path, tiny_model_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    written(tmp_path / "talks.jsonl", TALKS)
    app = App(result_action="return_value")
    app.command(import_rows, name=NAME)
    app.command(experience)
    app.command(audit)

    def call(*arguments):
        app([str(tiny_model_path) if each == "MODEL" else each for each in arguments])
        return " ".join(capsys.readouterr().out.split())

    return call


def test_turns_of_text_get_ids_where_a_model_is_named_and_are_scored_shown_and_audited(run, tmp_path):
    said = run("import", "talks.jsonl", "--into", "plain", "--turns")
    assert "6 added" in said and "6 of 6 have a reward" in said
    (bare, *_) = open_store(tmp_path / "plain").samples(where="sample_id = 'talk-1'")
    assert [turn.role for turn in bare.turns] == ["assistant", "user", "assistant"] and bare.response_ids == ()
    run("import", "talks.jsonl", "--into", "store", "--turns", "--model", "MODEL")
    (whole, *_) = open_store(tmp_path / "store").samples(where="sample_id = 'talk-1'")
    assert whole.num_drawn == len("what?") + len("it is 1") + 2 and len(whole.response_ids) > whole.num_drawn
    for name in ("plain", "store"):
        assert "what?" in run("experience", "show", name, "talk-1", "--model", "MODEL")
        run(
            "experience",
            "score",
            name,
            "--model",
            "MODEL",
            "--assume-plain",
            "--is-logging-model",
            "--into",
            f"{name}-scored",
        )
    scored = [open_store(tmp_path / f"{name}-scored").sample("talk-1") for name in ("plain", "store")]
    assert scored[0].log_mu == scored[1].log_mu and len(scored[0].log_mu or ()) == whole.num_drawn
    assert "6 samples" in run("audit", "store-scored")
    run("audit", "plain")


def test_without_turns_the_last_answer_alone_is_drawn(run, tmp_path):
    run("import", "talks.jsonl", "--into", "store")
    sample = open_store(tmp_path / "store").sample("talk-1")
    assert (sample.response, sample.turns, len(sample.prompt)) == ("it is 1", (), 3)


def test_an_export_for_verifiers_comes_back(run, tmp_path):
    run("import", "talks.jsonl", "--into", "store", "--turns", "--model", "MODEL")
    run("experience", "export", "store", "--to", "traces.jsonl", "--form", "verifiers")
    assert len(json.loads((tmp_path / "traces.jsonl").read_text().splitlines()[0])["traces"][0]["nodes"]) == 4
    run("import", "traces.jsonl", "--into", "again")
    first, again = (
        sorted(open_store(tmp_path / name).samples(), key=lambda s: s.sample_id) for name in ("store", "again")
    )
    assert first == again

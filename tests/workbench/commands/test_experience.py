import csv
import json
import unicodedata
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from klimb.errors import ConfigError
from klimb.experience import Sample, SamplingSettings, read_samples, write_samples
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.experience.store_summary import summarise
from klimb.policies import TokenMismatch, load_policy
from klimb.training import score_samples
from klimb.ui.terminal.store import shift_errors, token_rows, visible
from klimb.workbench.cli import run_command
from klimb.workbench.commands.experience import experience

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202eabc\u200b\x9b31m"
BASE = Sample(
    sample_id="a-0",
    group_id="a",
    prompt=({"role": "user", "content": "2 + 3 = ?"},),
    prompt_ids=(1, 2, 3),
    response="5",
    response_ids=(22, 2),
    finish_reason="stop",
    reward=1.0,
    reward_parts={"correct": 1.0, "overlong": -0.25},
    reward_reason="5 equals 5",
    log_mu=(-0.25, -0.5),
    log_mu_provenance="sampler",
    sampling=SamplingSettings(temperature=0.7),
    model="tiny",
    policy_version=3,
    created_at=1.7e9,
    metadata={"problem_id": "2+3"},
    raw='{"a": 1}',
)
TEXT_ONLY = replace(
    BASE,
    sample_id="t-0",
    group_id="t",
    prompt_ids=(),
    response_ids=(),
    log_mu=None,
    log_mu_provenance="absent",
    sampling=None,
    reward=None,
    source="log",
    model="",
    policy_version=0,
    created_at=0.0,
    raw="",
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    store = Store(tmp_path / "store")
    store.append([BASE, replace(BASE, sample_id="a-1", reward=0.0, policy_version=4), TEXT_ONLY])
    return store


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    experience(list(arguments), result_action="return_value")
    return capsys.readouterr().out


def rows_of(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def scored_by(model: Path) -> Sample:
    """A response of the tiny model's characters with its own log-probabilities as log_mu."""
    policy = load_policy(str(model))
    prompt = ({"role": "user", "content": "2 + 3 = ?"},)
    ids = (*policy.tokenizer("five is it", add_special_tokens=False)["input_ids"], policy.end_ids[0])
    bare = replace(
        TEXT_ONLY,
        prompt=prompt,
        prompt_ids=tuple(policy.render(prompt)),
        response="five is it",
        response_ids=ids,
        sampling=SamplingSettings(),
        tokenizer=policy.fingerprint,
    )
    (log_mu,) = score_samples(policy, [bare], max_tokens=1000)
    return replace(bare, log_mu=log_mu, log_mu_provenance="sampler")


def test_ls_counts_what_is_there(store: Store, capsys):
    store.append_feedback(
        [
            Feedback(feedback_id="1", sample_id="a-1", value=0.5, user="u"),
            Feedback(feedback_id="2", sample_id="later", value=1.0),
        ]
    )
    out = run(capsys, "ls", "store")
    assert "samples    3 in 2 groups · 1 without token ids" in out
    assert "rewards    2 have one, 1 have none" in out
    assert "feedback   2 rows on 2 samples, 1 of them not here yet" in out
    assert "tokens     4 of responses, 6 of their prompts" in out
    assert "age        2023-11-14 22:13 UTC to 2023-11-14 22:13 UTC · policy versions 0 to 4" in out
    assert "segments   2, " in out
    rows = rows_of(out)
    assert ["source", "rollout", "2", "4", "0.750"] in rows, "the mean of 1 and the rating of 0.5"
    assert ["log", "1", "0", "none"] in rows
    assert ["log_mu", "sampler", "2", "4", "0.750"] in rows
    assert ["tiny", "·", "version", "4", "1", "2", "0.500"] in rows
    assert ["0.5", "1", "█" * 24] in rows


def test_ls_of_some_samples_says_which(store: Store, capsys):
    out = run(capsys, "ls", "store", "--where", "reward = 1")
    assert out.startswith("store · reward = 1\n")
    assert "samples    1 in 1 groups" in out
    with pytest.raises(ValueError, match="not a condition on samples"):
        experience(["ls", "store", "--where", "reward ="], result_action="return_value")


def test_ls_takes_a_run_and_a_store_without_samples(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    write_samples(tmp_path / "run" / "rollouts" / "step-000001.parquet", [])
    out = run(capsys, "ls", "run")
    assert out.startswith("run/rollouts\n")
    assert "samples    0 in 0 groups" in out


@pytest.mark.parametrize("width", [80, 120])
def test_ls_fits_the_terminal_whatever_models_are_called(store: Store, capsys, monkeypatch, width: int):
    monkeypatch.setenv("COLUMNS", str(width))
    named = [
        replace(BASE, sample_id=f"m{n}", model=f"{'long-name-' * 9}{n}{HOSTILE}", policy_version=n) for n in range(12)
    ]
    store.append(named)
    out = run(capsys, "ls", "store")
    table = out[out.index("by ") :]
    assert max(cell_len(line.rstrip()) for line in table.splitlines()) <= width
    assert "7 others" in out, "15 policies, 8 of them shown"


def test_ls_names_what_a_stopped_writer_left(store: Store, capsys):
    (store.folder / ".samples-000009-aa.parquet.tmp-1").write_bytes(b"PAR1")
    assert ".samples-000009-aa.parquet.tmp-1 is no part of the store" in run(capsys, "ls", "store")


def test_many_rewards_are_counted_in_ten_bins_that_hold_all(tmp_path: Path):
    store = Store(tmp_path)
    store.append([replace(BASE, sample_id=str(n), reward=n - 50.0) for n in range(101)])
    bins = summarise(store).rewards
    assert [count for _, _, count in bins] == [10] * 9 + [11], "the last bin holds its upper edge"
    assert (bins[0][0], bins[-1][1]) == (-50.0, 50.0)


def test_show_prints_everything_known_of_a_sample(store: Store, capsys):
    out = run(capsys, "show", "store", "a-0")
    for expected in (
        "a-0 of group a",
        "user\n  2 + 3 = ?",
        "response\n  5",
        "reward     1\n",
        "parts      correct 1, overlong -0.25",
        "reason     5 equals 5",
        "source     rollout · tiny, version 3",
        "created    2023-11-14 22:13 UTC",
        "ended      stop, 2 tokens",
        "log_mu     sampler",
        "sampling   temperature 0.7, top-p 1, top-k 0, min-p 0, at most 64 tokens",
        'metadata   {"problem_id": "2+3"}',
        "--model MODEL",
    ):
        assert expected in out
    assert ["1", "2", "-0.5000"] in rows_of(out), "position, id, log_mu"


def test_show_prints_nothing_that_steers_a_terminal(store: Store, capsys):
    hostile = replace(
        BASE,
        sample_id="h",
        prompt=({"role": f"user{HOSTILE}", "content": f"one\n{HOSTILE}"},),
        response=HOSTILE,
        reward_reason=HOSTILE,
        model=HOSTILE,
        metadata={HOSTILE: HOSTILE},
        reward_parts={HOSTILE: 1.0},
        tokenizer=HOSTILE,
    )
    store.append([hostile])
    out = run(capsys, "show", "store", "h") + run(capsys, "ls", "store")
    assert {unicodedata.category(c) for c in out if c != "\n"}.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn"})


def test_show_falls_back_to_the_reference(store: Store, capsys):
    store.append([replace(BASE, sample_id="r", log_ref=(-1.25, -0.5))])
    rows = rows_of(run(capsys, "show", "store", "r"))
    assert ["position", "token", "log_mu", "log_ref", "difference"] in rows
    assert ["0", "22", "-0.2500", "-1.2500", "-1.0000", "◀", "largest"] in rows
    assert ["1", "2", "-0.5000", "-0.5000", "0.0000"] in rows


def test_show_with_the_logging_model_finds_no_difference(store: Store, capsys, tiny_model_path: Path):
    store.append([replace(scored_by(tiny_model_path), sample_id="own")])
    out = run(capsys, "show", "store", "own", "--model", str(tiny_model_path))
    assert "0.0000 at s = 0" in " ".join(out.split())
    assert "looks moved" not in out
    assert "␣" in out and "<|im_end|>" in out


def test_show_finds_log_probabilities_that_are_moved_by_one(store: Store, capsys, tiny_model_path: Path):
    own = scored_by(tiny_model_path)
    assert own.log_mu is not None
    store.append(
        [
            replace(own, sample_id="early", log_mu=(*own.log_mu[1:], -1.0)),
            replace(own, sample_id="late", log_mu=(-1.0, *own.log_mu[:-1])),
        ]
    )
    # In one line: where the printed one is broken depends on how long the path of the model is.
    early, late = (
        " ".join(run(capsys, "show", "store", name, "--model", str(tiny_model_path)).split())
        for name in ("early", "late")
    )
    assert "0.0000 at s = -1" in early and "log_mu fits the tokens after its own" in early
    assert "0.0000 at s = 1" in late and "log_mu fits the tokens before its own" in late


def test_show_gives_tokens_to_a_text_when_there_is_a_model(store: Store, capsys, tiny_model_path: Path):
    assert "only the text was recorded" in run(capsys, "show", "store", "t-0")
    out = run(capsys, "show", "store", "t-0", "--model", str(tiny_model_path))
    assert [row[1] for row in rows_of(out) if row[:1] in (["0"], ["1"])] == ["5", "<|im_end|>"]


def test_show_refuses_a_model_with_another_tokenizer(store: Store, tiny_model_path: Path):
    store.append([replace(scored_by(tiny_model_path), sample_id="other", tokenizer="0" * 16)])
    with pytest.raises(TokenMismatch, match="tokenizer"):
        experience(["show", "store", "other", "--model", str(tiny_model_path)], result_action="return_value")


def test_show_hides_the_rest_of_a_long_answer_but_not_what_differs_most(store: Store, capsys):
    long = replace(
        BASE, sample_id="long", response_ids=tuple(range(90)), log_mu=(-1.0,) * 90, log_ref=(-1.0,) * 80 + (-3.0,) * 10
    )
    store.append([long])
    out = run(capsys, "show", "store", "long", "--tokens", "5")
    table = rows_of(out[out.index("position") : out.index("82 more")])
    assert [row[0] for row in table[1:] if row] == ["0", "1", "2", "3", "4", "80", "81", "82"]
    assert "82 more tokens; --tokens 90 shows all" in out


def test_shift_errors_by_hand():
    # s = −1 pairs (1, 20), (2, 30); s = 0 all three; s = +1 pairs (2, 10), (3, 20).
    assert shift_errors([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]) == ((19 + 28) / 2, (9 + 18 + 27) / 3, (8 + 17) / 2)
    assert shift_errors([1.0], [4.0]) == (None, 3.0, None)


def test_differences_are_log_w():
    rows = token_rows(BASE, log_pi=(-1.0, -0.25), texts=["5", "\n"])
    assert rows.columns == ((-0.25, -0.5), (-1.0, -0.25), (-0.75, 0.25))
    assert (rows.tokens, rows.other_name, rows.largest) == (("5", "⏎"), "log_pi", frozenset({0, 1}))


def test_tokens_are_made_visible():
    assert visible(" a\tb\n\x1b[1m\u202e") == "␣a⇥b⏎<1b>[1m<202e>"


def test_export_to_a_segment_holds_the_same_samples_with_ratings_joined(store: Store, capsys):
    store.append_feedback([Feedback(feedback_id="1", sample_id="t-0", value=0.5)])
    out = run(capsys, "export", "store", "--to", "out/all.parquet")
    assert "3 samples in out/all.parquet" in out
    assert read_samples("out/all.parquet") == list(store.samples())
    assert read_samples("out/all.parquet")[2].reward == 0.5


def test_export_to_jsonl_is_one_object_a_line(store: Store, capsys):
    odd = replace(BASE, sample_id="odd", response="é\u2028\n\x00 end")
    store.append([odd])
    run(capsys, "export", "store", "--to", "all.jsonl", "--where", "sample_id in ('a-0', 'odd')")
    lines = [json.loads(line) for line in Path("all.jsonl").read_bytes().split(b"\n")[:-1]]
    assert lines == [json.loads(json.dumps(asdict(sample))) for sample in (BASE, odd)]


def test_export_to_csv_has_lists_as_json_and_nothing_for_none(store: Store, capsys):
    run(capsys, "export", "store", "--to", "all.csv")
    with Path("all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["reward"] for row in rows] == ["1.0", "0.0", ""]
    assert json.loads(rows[0]["log_mu"]) == [-0.25, -0.5]
    assert json.loads(rows[0]["prompt"]) == [{"role": "user", "content": "2 + 3 = ?"}]
    assert rows[2]["log_mu"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_in_an_exported_csv_is_a_formula_and_numbers_stay_numbers(store: Store, capsys, start: str):
    hostile = replace(
        BASE, sample_id="odd", response=f"{start}cmd|'/c calc'!A1", reward=-1.5, reward_reason=f"{start}1"
    )
    store.append([hostile])
    run(capsys, "export", "store", "--to", "all.csv", "--where", "sample_id = 'odd'")
    with Path("all.csv").open(newline="") as file:
        (row,) = list(csv.DictReader(file))
    assert row["response"] == f"'{start}cmd|'/c calc'!A1"
    assert row["reward_reason"] == f"'{start}1"
    assert row["reward"] == "-1.5"


def test_export_writes_over_nothing_unless_told(store: Store, capsys):
    Path("all.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"already exists.*--force"):
        experience(["export", "store", "--to", "all.csv"], result_action="return_value")
    assert Path("all.csv").read_text() == "mine"
    run(capsys, "export", "store", "--to", "all.csv", "--force")
    assert Path("all.csv").read_text().startswith("sample_id,")


@pytest.mark.parametrize(
    ("to", "message"), [("all.xlsx", r"\.jsonl, \.csv, \.parquet"), ("store/a.parquet", "inside the store")]
)
def test_export_refuses_other_formats_and_the_store_itself(store: Store, to: str, message: str):
    with pytest.raises(ConfigError, match=message):
        experience(["export", "store", "--to", to], result_action="return_value")


def test_export_of_what_json_cannot_write_leaves_no_file(store: Store):
    store.append([replace(BASE, sample_id="nan", log_mu=(float("nan"), -1.0))])
    with pytest.raises(ValueError, match="sample nan: a number is NaN"):
        experience(["export", "store", "--to", "all.jsonl"], result_action="return_value")
    assert [path.name for path in Path().iterdir()] == ["store"]


def test_a_rater_is_left_out_listed_and_let_in_again(tmp_path: Path, capsys):
    store = Store(tmp_path / "store")
    store.append([replace(BASE, sample_id="s", reward=None)])
    store.append_feedback([Feedback(feedback_id="f", sample_id="s", value=1.0, user="0123456789abcdef")])
    asked = ["experience", "quarantine", str(store.folder)]
    assert run_command([*asked, "--rater", "0123456789abcdef", "--reason", "[bursts]"]) == 0
    assert store.sample("s").reward is None
    capsys.readouterr()
    assert run_command(asked) == 0
    assert "0123456789abcdef  [bursts]" in capsys.readouterr().out
    assert run_command([*asked, "--rater", "0123456789abcdef", "--release"]) == 0
    assert store.sample("s").reward == 1.0
    assert run_command([*asked, "--rater", "ann"]) == 2, "a name is no hash"

import json
import re
import tomllib
from dataclasses import replace
from io import StringIO
from pathlib import Path
from shutil import copytree

import pytest
import torch
from rich.console import Console

from klimb.errors import ConfigError
from klimb.experience import Feedback, Sample, SamplingSettings, write_samples
from klimb.experience.importing import import_rows
from klimb.experience.store import Store
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import arithmetic
from klimb.ui.pages.files import chosen_path, is_ours, stamped
from klimb.workbench.auditing import evaluation_prompts, hints, run_audit
from klimb.workbench.config import RunConfig, build_config, is_resolved, read_tables, save_config, with_overrides
from klimb.workbench.log_scoring import chosen_rows, draw_fresh, note_unfit, read_rows, score_again, score_rows
from klimb.workbench.options import AuditOptions
from klimb.workbench.provenance import new_run_folder
from klimb.workbench.session import make_task

NUM_PROMPTS = 24
NUM_SAMPLES = 4


def drawn(policy) -> list[Sample]:
    """Answers of the tiny model to sums, the reward being whether the first token's id is even."""
    problems = arithmetic().train[:NUM_PROMPTS]
    settings = SamplingSettings(max_new_tokens=6)
    prompts = [policy.render(problem.messages) for problem in problems]
    generator = torch.Generator().manual_seed(0)
    answers = LocalSampler(policy).sample(prompts, num_samples=NUM_SAMPLES, settings=settings, generator=generator)
    return [
        Sample(
            sample_id=f"s-{number:02d}-{index}",
            group_id=f"g-{number:02d}",
            prompt=problem.messages,
            prompt_ids=prompt,
            response=policy.decode(completion.response_ids),
            response_ids=completion.response_ids,
            finish_reason=completion.finish_reason,
            reward=float(completion.response_ids[0] % 2 == 0),
            log_mu=completion.log_mu,
            log_mu_provenance="sampler",
            sampling=settings,
            tokenizer=policy.fingerprint,
        )
        for number, (problem, prompt, completions) in enumerate(zip(problems, prompts, answers, strict=True))
        for index, completion in enumerate(completions)
    ]


@pytest.fixture(scope="module")
def policy(tiny_model_path: Path):
    """One for all tests here: an audit changes no weight."""
    return load_policy(str(tiny_model_path), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def logged(policy) -> list[Sample]:
    return drawn(policy)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, logged: list[Sample]) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "logs"
    Store(folder).append(logged)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Path) -> Path:
    """A working directory with a store named `logs`."""
    monkeypatch.chdir(tmp_path)
    copytree(stored, tmp_path / "logs")
    return tmp_path


def audited(data: Path = Path("logs"), **settings):
    console = Console(width=100, record=True, file=StringIO())
    report = run_audit(data, AuditOptions(**{"hoped_gain": 0.5, **settings}), console=console)
    return report, console.export_text()


def finding_named(report, part: str):
    return next(each for block in report.blocks for each in block.findings if part in each.name)


def test_an_audit_scores_and_leaves_a_page_and_a_run_file(place: Path, tiny_model_path: Path):
    model = str(tiny_model_path)
    report, text = audited(model=model, is_logging_model=True, evaluation="arithmetic", fresh=12)
    assert report.num_samples == NUM_PROMPTS * NUM_SAMPLES and report.num_groups == NUM_PROMPTS
    assert report.verdict.kind == "rl-with-correction"
    # The policy is the one that drew: w = 1 everywhere, but for the rounding of bfloat16 where a machine prefers it.
    assert finding_named(report, "effective share of token weights").number == pytest.approx(1, abs=2e-3)
    assert finding_named(report, "k3 against the logging model").number == pytest.approx(0, abs=1e-3)
    assert finding_named(report, "look like logged ones").status != "unknown"
    assert finding_named(report, "evaluation prompts in the data").number == 0
    page = (place / "logs-audit.html").read_text()
    for each in (each for block in report.blocks for each in block.findings):
        assert each.evidence[:10].partition("&")[0] in text
        assert f">{STATUS[each.status]}<" in page
    config = build_config(read_tables(place / "logs-audit.toml"), source="")
    assert config.log is not None and (config.log.path, config.log.where) == ("logs", "")
    assert (config.model.path, config.objective.recipe) == (model, report.verdict.recipes[0])
    assert "logs-audit.html" in text and "klimb train logs-audit.toml" in text
    assert "RUN.toml" not in report.verdict.next_action


def test_float32_log_probabilities_of_a_model_that_computes_in_bfloat16_are_its_own(
    place: Path, tiny_model_path: Path, logged: list[Sample], monkeypatch: pytest.MonkeyPatch
):
    in_bfloat16 = load_policy(str(tiny_model_path), dtype="bfloat16", device="cpu")
    scored = score_rows(in_bfloat16, logged, max_samples=100, seed=0).log_pi
    gaps = [
        abs(a - b)
        for s, row in zip(logged, scored, strict=True)
        for a, b in zip(s.log_mu or (), row or (), strict=True)
    ]
    monkeypatch.setattr("klimb.workbench.auditing.load_policy", lambda path: in_bfloat16)
    report, _ = audited(model=str(tiny_model_path), is_logging_model=True)
    assert finding_named(report, "mean |Δ| against the logging model").number < 0.3 * sum(gaps) / len(gaps)
    assert "own rounding, bfloat16 against float32" in " ".join(Path("logs-audit.html").read_text().split())
    for name in ("mean |Δ| against the logging model", "k3 against the logging model", "tokens off"):
        assert finding_named(report, name).status == "good"
    assert finding_named(report, "k3 against the logging model").number < 1e-3


def test_a_model_is_scored_in_the_other_precision_on_a_few_rows_and_keeps_its_own(policy, logged: list[Sample]):
    scored = score_rows(policy, logged, max_samples=8, seed=0)
    first, again, name = score_again(policy, logged, scored)
    assert name == "float32 against bfloat16" and policy.compute_dtype == torch.float32
    assert 1 <= len(first) == len(again) <= 8
    for one, other in zip(first, again, strict=True):
        assert one != other and one == pytest.approx(other, abs=0.2)


def test_the_first_screen_stands_first_and_json_says_the_same(place: Path):
    report, text = audited(json=Path("result.json"))
    assert text.index("clone the good answers") < text.index("The technical part") < text.index("Where the data comes")
    told = json.loads(Path("result.json").read_text(encoding="utf-8"))
    assert [(use["name"], use["answer"]) for use in told["uses"]] == [(use.name, use.answer) for use in report.uses]
    page = re.sub(r"<[^>]*>", "", (place / "logs-audit.html").read_text(encoding="utf-8"))
    for use in report.uses:
        assert use.name in text and use.name in page
        assert "RUN.toml" not in use.next_step and not re.search(r"\bDATA\b", use.next_step)
    assert told["contents"]["num_samples"] == NUM_PROMPTS * NUM_SAMPLES


def test_ratings_in_the_store_are_read_one_by_one(place: Path, logged: list[Sample]):
    votes = [
        Feedback(feedback_id=f"{user}-{sample.sample_id}", sample_id=sample.sample_id, value=sample.reward, user=user)
        for sample in logged[:40]
        for user in ("ann", "ben")
    ]
    Store(place / "logs").append_feedback(votes)
    report, _ = audited()
    assert finding_named(report, "agreement of raters").number == 1.0


def test_what_was_imported_from_which_file_and_what_was_not_is_on_the_first_screen(place: Path):
    rows = [{"prompt": f"question {n}", "completion": f"answer {n}", "label": n % 2 == 0} for n in range(30)]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "without an answer", "label": True}])
    (place / "thumbs.jsonl").write_text(lines, encoding="utf-8")
    import_rows(Store(place / "st"), place / "thumbs.jsonl", kind="kto")
    report, text = audited(data=Path("st"))
    assert report.contents.files == (("thumbs.jsonl", 30),) and report.contents.num_left_out == 1
    assert "30, to 30 different questions" in text and "1 row never came in" in text and "imported as kto 30" in text


def test_a_run_that_clones_begins_with_the_command_of_the_first_screen(place: Path):
    report, _ = audited(hoped_gain=0.01)
    assert report.verdict.kind == "collect-more", "the run file of this verdict draws fresh answers"
    command = next(use.next_step for use in report.uses if use.name == "clone the good answers").split()
    path = Path(command[2])
    tables = with_overrides(read_tables(path), command[4:], is_resolved=is_resolved(path))
    config = build_config(tables, source="")
    assert config.objective.recipe == "bc-filtered" and config.log is not None and config.log.path == "logs"
    assert (config.sources.log, config.sources.rollout) == (1.0, 0.0)


STATUS = {"good": "✓ good", "warning": "! warning", "bad": "✗ bad", "unknown": "? not known"}


def test_without_a_model_the_overlap_is_unknown_and_the_audit_says_why(place: Path):
    report, text = audited()
    assert finding_named(report, "effective share of token weights").status == "unknown"
    assert "No --model was given" in text
    page = re.sub(r"<[^>]+>", "", (place / "logs-audit.html").read_text(encoding="utf-8"))
    assert "No --model was given" in page


def test_a_condition_selects_what_is_audited(place: Path):
    report, _ = audited(where="group_id < 'g-20'")
    assert report.num_groups == 20
    log = build_config(read_tables(Path("logs-audit.toml")), source="").log
    assert log is not None and log.where == "group_id < 'g-20'", "the run takes what was audited"
    with pytest.raises(ConfigError, match="no samples where reward > 7"):
        audited(where="reward > 7")


def test_a_cut_takes_whole_groups_at_random_and_is_said(place: Path):
    report, text = audited(max_rows=3 * NUM_SAMPLES + 1)
    assert (report.num_groups, report.num_samples) == (3, 3 * NUM_SAMPLES)
    assert f"Read are 12 of {NUM_PROMPTS * NUM_SAMPLES} samples: whole groups at random" in text


def test_the_seed_decides_which_groups_are_read(place: Path):
    store = Store(place / "logs")
    first, again, other = (
        {sample.group_id for sample in read_rows(store, where="", max_rows=20, seed=seed).samples} for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len(first) == 5


def test_no_group_is_torn_and_one_that_is_too_large_is_taken_whole(logged: list[Sample]):
    rows = chosen_rows(logged, range(len(logged)), most=10, seed=0)
    assert len(rows) == 2 * NUM_SAMPLES and rows == sorted(rows)
    groups = [logged[row].group_id for row in rows]
    assert all(groups.count(group) == NUM_SAMPLES for group in groups)
    assert len(chosen_rows(logged, range(len(logged)), most=1, seed=0)) == NUM_SAMPLES


def test_scores_are_those_of_the_policy_and_of_chosen_rows_alone(policy, logged: list[Sample]):
    scored = score_rows(policy, logged, max_samples=8, seed=0)
    rows = [row for row, score in enumerate(scored.log_pi) if score is not None]
    assert len(rows) == 8
    for row in rows:
        # The model that drew them scores them again: log_mu itself.
        assert scored.log_pi[row] == pytest.approx(logged[row].log_mu, abs=1e-4)
    assert scored.notes == ("Scored are 8 of 96 samples with log μ: whole groups at random (--max-samples 8).",)


def test_rows_that_cannot_be_scored_are_counted_and_the_rest_is_scored(policy, logged: list[Sample]):
    text_only = replace(logged[0], response_ids=(), log_mu=None, log_mu_provenance="absent")
    wrong = replace(logged[1], response="something else")
    long = replace(logged[2], prompt_ids=logged[2].prompt_ids * 20)
    broken = replace(logged[3], log_mu=tuple(float("nan") for _ in logged[3].response_ids))
    scored = score_rows(policy, [text_only, wrong, long, broken, logged[4]], max_samples=100, seed=0)
    assert [score is not None for score in scored.log_pi] == [False, False, False, True, True]
    assert scored.notes[0] == "1 of 5 samples have no tokens with log μ and were not scored."
    assert scored.notes[1].startswith("2 of 4 chosen samples could not be scored. The first: ")


def test_texts_that_a_run_would_refuse_are_counted_and_the_first_is_named(policy, logged: list[Sample]):
    texts = [
        replace(sample, prompt_ids=(), response_ids=(), log_mu=None, log_mu_provenance="absent", tokenizer="")
        for sample in logged[:4]
    ]
    assert note_unfit(policy, texts, max_samples=100, seed=0) == []
    # 19 tokens of the template, 1 of the question and 1 that ends the answer, of the 256 that the model has.
    question = ({"role": "user", "content": "q"},)
    over, just = (
        replace(texts[0], prompt=question, response="a" * length, finish_reason="stop") for length in (236, 235)
    )
    (note,) = note_unfit(policy, [over, just, *texts[1:]], max_samples=100, seed=0)
    assert note.startswith("1 of 5 samples without log μ cannot be trained on")
    assert f"sample {over.sample_id}: 257 tokens are more than the model's context of 256" in note


def test_ids_of_another_tokenizer_are_not_held_against_the_data(place: Path, tiny_model_path: Path, logged):
    Store(place / "foreign").append([replace(sample, tokenizer="another") for sample in logged])
    report, text = audited(data=Path("foreign"), model=str(tiny_model_path))
    assert "96 of 96 samples say that their token ids belong to another tokenizer" in text
    assert finding_named(report, "token ids decode to the text").status == "unknown"


def test_fresh_answers_are_to_logged_prompts_and_drawn_from_the_policy_itself(policy, logged: list[Sample]):
    fresh = draw_fresh(policy, logged, num_answers=2 * NUM_PROMPTS, seed=0)
    assert fresh.notes == ()
    assert len(fresh.samples) == 2 * NUM_PROMPTS
    assert {str(sample.prompt) for sample in fresh.samples} == {str(sample.prompt) for sample in logged}
    assert all(sample.sampling is not None and sample.sampling.draws_at(1.0) for sample in fresh.samples)
    few = draw_fresh(policy, logged, num_answers=3, seed=0).samples
    assert len(few) == len({str(sample.prompt) for sample in few}) == 3


def test_prompts_without_room_for_an_answer_are_not_asked_and_that_is_said(policy, logged: list[Sample]):
    long = replace(logged[0], prompt=({"role": "user", "content": "1" * 250},))
    fresh = draw_fresh(policy, [long], num_answers=1, seed=0)
    assert fresh.samples == () and "1 leave no room" in fresh.notes[0]


def test_evaluation_prompts_are_the_held_out_questions_of_the_task(tmp_path: Path):
    assert evaluation_prompts("arithmetic") == tuple(each.messages[-1]["content"] for each in arithmetic().held_out)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Name the capital of France.", "answer": "Paris"}\n')
    assert evaluation_prompts(f"file:{rows}") == ("Name the capital of France.",)
    with pytest.raises(ConfigError, match="nothing behind a colon"):
        evaluation_prompts("arithmetic:hard")


def test_evaluation_prompts_in_the_data_are_found(place: Path):
    rows = place / "rows.jsonl"
    question = arithmetic().train[0].messages[-1]["content"]
    rows.write_text(f'{{"question": "{question}", "answer": "1"}}\n{{"question": "Who?", "answer": "2"}}\n')
    report, _ = audited(evaluation=f"file:{rows}")
    assert finding_named(report, "evaluation prompts in the data").number == 0.5


RUN = {
    "model": {"path": "some-model"},
    "task": {"kind": "arithmetic", "digits": 2, "num_problems": 50},
    "sampling": {"num_prompts": 4, "num_samples": NUM_SAMPLES, "max_new_tokens": 6},
    "optimizer": {"learning_rate": 2e-5, "warmup_steps": 3},
}


def run_folder(path: Path, logged: list[Sample]) -> RunConfig:
    config = build_config(RUN, source="")
    folder = new_run_folder(path, config)
    (folder.path / "rollouts").mkdir()
    write_samples(folder.path / "rollouts" / "step-000001.parquet", logged)
    return config


def test_the_run_file_of_a_runs_folder_is_that_run_and_its_held_out_problems_are_the_evaluation(place: Path, logged):
    run = run_folder(place / "runs" / "sums", logged)
    report, text = audited(data=Path("runs/sums"))
    again = build_config(read_tables(place / "sums-audit.toml"), source="")
    assert (again.task, again.sampling, again.optimizer, again.model) == (
        run.task,
        run.sampling,
        run.optimizer,
        run.model,
    )
    # The audited answers are to sums of one digit, the run's task is sums of two.
    assert finding_named(report, "evaluation prompts not in the data").number == 1
    assert f"held out by the audited run, {len(make_task(run).held_out)} prompts" in (
        place / "sums-audit.html"
    ).read_text(encoding="utf-8")
    assert "klimb train sums-audit.toml --dry-run tells time and memory first" in " ".join(text.split())


def test_a_run_whose_configuration_cannot_be_read_is_audited_and_the_notes_say_so(place: Path, logged):
    run_folder(place / "old", logged)
    (place / "old" / "config.json").write_text('{"sampling": {"num_answers": 3}}')
    report, text = audited(data=Path("old"))
    assert report.num_samples == len(logged)
    assert "What the audited run was is not known" in text and "num_answers" in text
    assert "task" not in read_tables(place / "old-audit.toml")


def test_held_out_problems_that_cannot_be_read_are_said_and_the_rest_is_done(place: Path, logged):
    run_folder(place / "old", logged)
    task = {"kind": "file", "path": "gone.jsonl"}
    save_config(place / "old" / "config.json", build_config({**RUN, "task": task}, source=""))
    report, text = audited(data=Path("old"))
    assert "held-out problems of the audited run could not be read" in text and "gone.jsonl" in text
    assert finding_named(report, "evaluation prompts in the data").status == "unknown"


def test_a_check_that_lacks_a_piece_names_the_option_that_gives_it(place: Path, tiny_model_path: Path):
    options = {
        "evaluation prompts in the data": "--eval TASK",
        "evaluation prompts in part in the data": "--eval TASK",
        "evaluation prompts not in the data": "--eval TASK",
        "k3 against the logging model": "--model MODEL --is-logging-model",
        "effective share of token weights": "--model MODEL",
        "tokens outside the band": "--model MODEL",
        "token ids decode to the text": "--model MODEL",
        "log-probabilities moved by one place": "--model MODEL",
        "the policy's own answers look like logged ones": "--model MODEL --fresh 100",
    }
    report, text = audited()
    page = re.sub(r"<[^>]*>", "", (place / "logs-audit.html").read_text(encoding="utf-8"))
    for name, option in options.items():
        assert f"(type {option}" in finding_named(report, name).title
        assert f"(type {option}" in " ".join(text.split()) and f"(type {option}" in page
    model = str(tiny_model_path)
    _, text = audited(model=model, is_logging_model=True, evaluation="arithmetic", fresh=4)
    assert "(type --" not in text


def test_no_option_is_named_that_would_not_help(logged: list[Sample]):
    texts = [replace(sample, response_ids=(), log_mu=None, log_mu_provenance="absent") for sample in logged]
    given = {"has_model": False, "has_questions": True, "is_logging_model": False, "num_fresh": 0}
    assert set(hints(texts, **given)) == {"the policy's own answers look like logged ones"}


@pytest.mark.parametrize("settings", [{"max_samples": 0}, {"max_rows": 0}, {"fresh": -1}, {"hoped_gain": 0.0}])
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=r"must be"):
        AuditOptions(**settings)


@pytest.mark.parametrize("settings", [{"fresh": 1}, {"is_logging_model": True}])
def test_questions_to_a_model_need_one(settings):
    with pytest.raises(ConfigError, match="need --model"):
        AuditOptions(**settings)


def test_a_run_file_that_somebody_changed_is_kept_and_an_unchanged_one_replaced(place: Path):
    audited()
    assert sorted(path.name for path in place.glob("*-audit*")) == ["logs-audit.html", "logs-audit.toml"]
    audited()
    assert sorted(path.name for path in place.glob("*-audit*")) == ["logs-audit.html", "logs-audit.toml"]
    mine = (place / "logs-audit.toml").read_text().replace("num_steps = 10", "num_steps = 7")
    assert "num_steps = 7" in mine
    (place / "logs-audit.toml").write_text(mine)
    audited()
    assert (place / "logs-audit.toml").read_text() == mine
    assert tomllib.loads((place / "logs-audit-2.toml").read_text())["training"]["num_steps"] == 10


@pytest.mark.parametrize("option", ["html", "config"])
def test_a_file_of_somebody_else_is_refused_before_anything_is_read(tmp_path: Path, option: str):
    taken = tmp_path / "notes.html"
    taken.write_text("my notes")
    with pytest.raises(ConfigError, match="choose another name"):
        audited(data=tmp_path / "missing", **{option: taken})
    assert taken.read_text() == "my notes"


def test_page_and_run_file_need_names_of_their_own():
    with pytest.raises(ConfigError, match="each a file of its own"):
        AuditOptions(html=Path("a"), config=Path("a"))


def test_a_stamp_holds_until_the_text_changes(tmp_path: Path):
    path = tmp_path / "any.conf"
    path.write_text(stamped("seed = 0\n"))
    assert is_ours(path)
    path.write_text(stamped("seed = 0\n") + "# my remark\n")
    assert not is_ours(path)
    assert not is_ours(tmp_path)


def test_default_names_follow_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert chosen_path(None, data=Path("runs/sums"), suffix=".html") == Path("sums-audit.html")
    assert chosen_path(None, data=Path("part-1.parquet"), suffix=".toml") == Path("part-1-audit.toml")
    assert chosen_path(None, data=Path("."), suffix=".html") == Path(f"{tmp_path.name}-audit.html")

"""The run file of an audit: what the audited run was, or what the data suggests, and never another task in silence."""

import tomllib
from dataclasses import replace

import pytest
from tests.findings.audit.fabricated import drawn, made

from klimb.experience.samples import SamplingSettings
from klimb.findings.audit import AuditReport, audit
from klimb.workbench.audit_run_file import Logged, logged, run_file, toml_text
from klimb.workbench.config import RunConfig, build_config
from klimb.workbench.session import make_task

DATA = Logged(num_groups=24, group_size=8.0, longest_tokens=11, longest_characters=40)
RUN = {
    "model": {"path": "some/model", "lora": {"rank": 4}},
    "task": {"kind": "arithmetic", "digits": 2, "wording": 'Say "{expression}"\n=', "held_out_fraction": 0.3},
    "scoring": {"timeout_seconds": 2.5, "overlong": {"buffer_tokens": 4}},
    "sampling": {"num_prompts": 4, "num_samples": 6, "max_new_tokens": 16, "top_p": 0.9},
    "optimizer": {"learning_rate": 3e-5, "warmup_steps": 2},
    "training": {"num_steps": 7, "micro_batch_tokens": 512},
    "evaluation": {"num_problems": 10, "greedy": False},
}


def configured(**sections) -> RunConfig:
    return build_config({**RUN, **sections}, source="test")


def report(kind: str = "rl-with-correction") -> AuditReport:
    samples, log_pi = drawn()
    if kind == "collect-more":
        samples = [replace(sample, reward=float(int(sample.group_id[1:]) % 2)) for sample in samples]
    if kind == "ratio-free-rl":
        samples = [replace(sample, sampling=SamplingSettings(top_p=0.5)) for sample in samples]
    if kind == "kto-or-dro":
        samples = [replace(sample, log_mu=None, log_mu_provenance="absent") for sample in samples]
    found = audit(samples, log_pi=log_pi)
    assert found.verdict.kind == kind
    return found


def tables_of(text: str) -> dict:
    tables = tomllib.loads(text)
    build_config(tables, source="the run file")
    return tables


@pytest.mark.parametrize("kind", ["rl-with-correction", "ratio-free-rl", "kto-or-dro"])
def test_the_run_file_trains_on_the_log_as_the_verdict_says(kind: str):
    found = report(kind)
    path = 'odd "name"\\with\x7fdelete'
    text = run_file(found, store=path, data=DATA, where="reward > 'a\"b'", model="m")
    tables = tomllib.loads(text)
    assert tables["objective"] == {"recipe": found.verdict.recipes[0]}
    assert (tables["sources"], tables["log"]) == ({"log": 1.0}, {"path": path, "where": "reward > 'a\"b'"})
    assert tables["model"] == {"path": "m"}
    tables_of(run_file(found, store="store", data=DATA))


@pytest.mark.parametrize("kind", ["rl-with-correction", "ratio-free-rl", "collect-more"])
def test_the_run_file_of_a_run_is_that_run_in_all_but_its_objective(kind: str):
    run = configured()
    text = run_file(report(kind), store="runs/sums", data=DATA, run=run)
    again = build_config(tables_of(text), source="test")
    for section in ("model", "task", "scoring", "sampling", "optimizer", "evaluation"):
        assert getattr(again, section) == getattr(run, section), section
    assert again.training.micro_batch_tokens == 512
    assert again.training.num_steps == (7 if kind == "collect-more" else 18), "3 passes × 24 groups / 4 a step"
    assert (again.log is None) == (kind == "collect-more")


def test_only_settings_that_are_not_the_defaults_are_written():
    text = run_file(report(), store="s", data=DATA, run=build_config({"sampling": {"num_prompts": 2}}, source="test"))
    tables = tomllib.loads(text)
    assert list(tables) == ["seed", "model", "task", "sampling", "objective", "sources", "log", "training"]
    assert (tables["task"], tables["sampling"]) == ({"kind": "arithmetic"}, {"num_prompts": 2})


def test_a_named_model_takes_the_place_of_that_of_the_run():
    tables = tables_of(run_file(report(), store="s", data=DATA, run=configured(), model="runs/sums/model"))
    assert tables["model"] == {"path": "runs/sums/model"}


def test_the_run_file_does_not_allow_code_of_others():
    run = configured(model={"path": "m", "trust_remote_code": True})
    text = run_file(report(), store="s", data=DATA, run=run)
    assert tables_of(text)["model"] == {"path": "m"}
    assert "had trust_remote_code on" in text


def test_what_a_run_on_a_log_refuses_is_not_taken_over():
    late = configured(sampling={"num_prompts": 99, "lag": 3})
    assert tables_of(run_file(report(), store="s", data=DATA, run=late))["sampling"] == {"num_prompts": 24}
    fresh = tables_of(run_file(report("collect-more"), store="s", data=DATA, run=late))["sampling"]
    assert fresh == {"num_prompts": 99, "lag": 3}
    single = configured(sampling={"num_samples": 1}, advantages={"kind": "batch-z-score"})
    assert tables_of(run_file(report(), store="s", data=DATA, run=single))["sampling"]["num_samples"] == 8


@pytest.mark.parametrize(
    ("num_groups", "group_size", "num_prompts", "num_steps", "arithmetic"),
    [
        (24, 8.0, 8, 10, "3 passes: 3 × 24 groups / 8 a step = 9, at least 10"),
        (400, 1.0, 64, 19, "3 passes: 3 × 400 groups / 64 a step = 19"),
        (2000, 4.0, 16, 100, "3 passes: 3 × 2,000 groups / 16 a step = 375, at most 100"),
        (3, 1.0, 3, 10, "= 3, at least 10"),
        (20, 500.0, 2, 30, "= 30"),
        (1, 5.0, 1, 10, "= 3, at least 10"),
    ],
)
def test_a_store_is_passed_three_times_in_batches_that_it_can_fill(
    num_groups: int, group_size: float, num_prompts: int, num_steps: int, arithmetic: str
):
    data = replace(DATA, num_groups=num_groups, group_size=group_size)
    text = run_file(report(), store="s", data=data, model="m")
    tables = tables_of(text)
    assert tables["sampling"] == {"num_prompts": num_prompts, "max_new_tokens": 11}
    assert tables["training"] == {"num_steps": num_steps}
    assert tables["optimizer"] == {"learning_rate": 1e-5}
    assert arithmetic in text and "1e-5  # the default, 1e-6, is for long runs" in text


def test_a_log_of_an_unknown_task_gets_none():
    text = run_file(report(), store="s", data=DATA, model="m")
    assert "task" not in tomllib.loads(text)
    assert "# [task]" in text and "held-out problems are answered before and after" in text


def test_fresh_answers_to_an_unknown_task_stop_until_it_is_filled_in(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = run_file(report("collect-more"), store="s", data=DATA, model="m")
    assert text.startswith("# Fill in [task]")
    config = build_config(tables_of(text), source="test")
    assert (config.sources.rollout, config.log) == (1.0, None)
    with pytest.raises(ValueError, match=r"FILL-IN\.jsonl"):
        make_task(config)


def test_the_sizes_of_the_data_are_those_of_all_of_it():
    samples, _ = drawn(num_prompts=5, num_samples=4)
    longest = max(len(sample.response_ids) for sample in samples)
    found = logged(samples, num_stored=40)
    assert (found.num_groups, found.group_size, found.longest_tokens) == (10, 4.0, longest)


def test_texts_without_tokens_are_measured_in_characters():
    found = logged([made(response="x" * 31, ids=(), log_mu=None)], num_stored=1)
    assert found.longest_tokens is None
    text = run_file(report("kto-or-dro"), store="s", data=found, model="m")
    assert tables_of(text)["sampling"]["max_new_tokens"] == 11, "31 characters, 3 a token"
    assert "31 characters" in text


def test_values_of_every_kind_read_back_from_toml():
    table = {
        "a b": {"in ner": [1, 2.5, True, 'x"\\\n\x7f'], "empty": {}},
        "list": [[1, 2], [{"k": "v"}]],
        "small": 1e-05,
        "large": 1e300,
        "negative": -3,
    }
    text = toml_text({"": {"seed": 0}, "none": {}, "table": table}, {"table.small": "a remark"})
    assert tomllib.loads(text) == {"seed": 0, "table": table}
    assert "small = 1e-5  # a remark" in text
    with pytest.raises(ValueError, match="no NoneType"):
        toml_text({"table": {"a": None}}, {})


def test_single_responses_are_compared_over_the_batch():
    tables = tables_of(run_file(report(), store="store", data=replace(DATA, group_size=1.0)))
    assert tables["advantages"] == {"kind": "batch-mean", "group_filter": False}
    assert "advantages" not in tables_of(run_file(report(), store="store", data=DATA))
    assert "advantages" not in tables_of(
        run_file(report("kto-or-dro"), store="store", data=replace(DATA, group_size=1.0))
    )


@pytest.mark.parametrize(("optimizer", "written"), [({}, None), ({"warmup_steps": 4}, 4)])
def test_a_warm_up_is_written_only_if_the_audited_run_was_given_one(optimizer, written):
    run = build_config({"optimizer": {"learning_rate": 3e-5, **optimizer}, "training": {"num_steps": 20}}, source="")
    tables = tomllib.loads(run_file(report(), store="s", data=DATA, run=run))
    assert tables["optimizer"].get("warmup_steps") == written

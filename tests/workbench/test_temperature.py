"""The policy's temperature from the run file to the saved model, and the clip of a policy that did not draw."""

import json
import re
from dataclasses import replace

import pytest
from tests.workbench.logged import SETTINGS, drawn, store_of

from klimb.experience import SamplingSettings
from klimb.experience.store import open_store
from klimb.training.run_folder import read_evaluations
from klimb.workbench.config import build_config
from klimb.workbench.log_scoring import recorded_temperature

WARM = SamplingSettings(temperature=0.7, max_new_tokens=5)
ON_A_LOG = (
    "sources.log=1.0",
    "log.path='log'",
    "objective.recipe='grpo'",
    "evaluation.at_ends=false",
    "training.num_steps=1",
)


def line(output: str, name: str) -> str:
    """The value of a labelled line, the first of that name."""
    return next(each.split(maxsplit=1)[1] for each in output.splitlines() if each.split()[:1] == [name])


def test_a_run_at_another_temperature_evaluates_and_saves_the_policy_of_that_temperature(workplace):
    outcome = workplace.klimb("train", "run.toml", "--set", "sampling.temperature=0.7")
    assert outcome.status == 0, outcome.err
    assert line(outcome.out, "policy").startswith("softmax(logits / 0.7): trained, evaluated and saved")
    run = workplace.path / "runs" / "run"
    assert {made.temperature for made in read_evaluations(run / "evaluations.jsonl")} == {0.7}
    saved = json.loads((run / "model" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["do_sample"], saved.get("top_p", 1.0)) == (0.7, True, 1.0)
    again = workplace.klimb("eval", "runs/run")
    assert again.status == 0, again.err
    assert "sampled at temperature 0.7" in again.out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("sampling.top_p=0.5",),
            "centred on the policy before each batch, since that is not μ (sampling.top_p = 0.5)",
        ),
        (
            ("sampling.temperature=0.5", "model.temperature=1.0"),
            "centred on the policy before each batch, since that is not μ (sampling.temperature = 0.5, the policy's is",
        ),
        (
            ("sampling.top_p=0.5", "correction.kind=none"),
            "of π/μ, and π is not μ before the first step (sampling.top_p = 0.5)",
        ),
    ],
)
def test_a_dry_run_says_where_the_clip_is_centred_and_what_it_touches_before_the_first_step(
    workplace, overrides, words: str
):
    narrow = ("objective.clip.low=0.01", "objective.clip.high=0.01")
    outcome = workplace.klimb("train", "run.toml", "--dry-run", "--set", *overrides, *narrow)
    assert outcome.status == 0, outcome.err
    assert words in outcome.out
    touched = re.search(r"touches ([\d.]+)% of the units before the first step", outcome.out)
    assert touched is not None
    assert (float(touched[1]) > 5) == (overrides[-1] == "correction.kind=none")


def test_a_plain_run_touches_nothing_and_says_no_more(workplace):
    outcome = workplace.klimb("train", "run.toml", "--dry-run")
    assert "touches 0.0% of the units before the first step" in outcome.out
    assert "centred" not in outcome.out and "softmax" not in outcome.out


def test_a_log_gives_its_temperature_to_the_policy_and_its_clip_is_centred(workplace, tiny_policy):
    tiny_policy.temperature = 0.7
    store_of(workplace.path / "log", drawn(tiny_policy, settings=WARM))
    outcome = workplace.klimb("train", "run.toml", "--set", *ON_A_LOG)
    assert outcome.status == 0, outcome.err
    assert "softmax(logits / 0.7)" in outcome.out
    assert "since that is not μ (sources.log = 1)" in outcome.out
    (row,) = [json.loads(text) for text in (workplace.path / "runs/run/metrics.jsonl").read_text().splitlines()]
    assert row["clip_at_start_fraction"] == 0
    assert (row["w_p01"], row["w_max"]) == pytest.approx((1, 1), abs=1e-4)


def test_a_log_of_two_temperatures_asks_which_policy_is_trained(workplace, tiny_policy):
    samples = drawn(tiny_policy)
    half = len(samples) // 2
    mixed = [*samples[:half], *(replace(sample, sampling=WARM) for sample in samples[half:])]
    store_of(workplace.path / "log", mixed)
    outcome = workplace.klimb("train", "run.toml", "--set", *ON_A_LOG)
    assert outcome.status == 2
    assert "at temperatures 0.7, 1," in outcome.err and "model.temperature" in outcome.err
    assert not (workplace.path / "runs").exists()
    told = workplace.klimb("train", "run.toml", "--set", *ON_A_LOG, "model.temperature=0.7")
    assert told.status == 0, told.err
    estimated = workplace.klimb("estimate", "log", "--model", str(workplace.model))
    assert estimated.status == 2
    assert "--temperature" in estimated.err
    assert workplace.klimb("estimate", "log", "--model", str(workplace.model), "--temperature", "1").status == 0


def test_the_model_that_drew_at_another_temperature_agrees_with_its_log(workplace, tiny_policy):
    """Estimate, audit and score take the model at the temperature that is recorded."""
    tiny_policy.temperature = 0.7
    samples = drawn(tiny_policy, settings=WARM, name=str(workplace.model))
    store_of(workplace.path / "log", samples)
    estimated = workplace.klimb("estimate", "log", "--model", str(workplace.model), "--json", "out.json")
    assert estimated.status == 0, estimated.err
    found = json.loads((workplace.path / "out.json").read_text())
    assert all(each["ess"] == pytest.approx(len(samples), abs=0.01) for each in found["estimates"])
    audited = workplace.klimb("audit", "log", "--model", str(workplace.model), "--is-logging-model")
    assert audited.status == 0, audited.err
    agreement = next(each for each in audited.out.splitlines() if "k3 against the logging model" in each)
    assert agreement.split()[0] == "good"
    scored = workplace.klimb("experience", "score", "log", "--model", str(workplace.model), "--into", "new")
    assert scored.status == 0, scored.err
    for before, after in zip(samples, open_store(workplace.path / "new").samples(), strict=True):
        assert after.log_mu == pytest.approx(before.log_mu, abs=1e-4)


def test_the_recorded_temperature_is_that_of_all_samples_with_log_mu(tiny_policy):
    (sample,) = drawn(tiny_policy, num_prompts=1, num_samples=1)
    warm, greedy = replace(sample, sampling=WARM), replace(sample, sampling=replace(SETTINGS, temperature=0.0))
    silent = replace(sample, sampling=None)
    no_log_mu = replace(silent, log_mu=None, log_mu_provenance="absent")
    assert recorded_temperature([warm, no_log_mu]) == 0.7
    assert [recorded_temperature(each) for each in ([warm, sample], [warm, silent], [greedy], [no_log_mu])] == [
        None
    ] * 4


@pytest.mark.parametrize("given", ["0.0", "-1", "'warm'", "nan"])
def test_a_temperature_that_no_policy_can_have_is_refused_by_name(workplace, given: str):
    outcome = workplace.klimb("train", "run.toml", "--set", f"model.temperature={given}")
    assert outcome.status == 2
    assert "model.temperature" in outcome.err


def test_the_choice_of_the_correction_is_kept_as_it_was_made():
    config = build_config({"sampling": {"top_p": 0.9}}, source="")
    assert config.correction.kind == "auto"
    assert config.chosen_correction().kind == "decoupled"
    plain = build_config({"sampling": {"temperature": 0.6}}, source="")
    assert plain.chosen_correction().kind == "none"
    masked = build_config({"correction": {"off_policy_mask": 0.5}}, source="")
    assert (masked.correction.kind, masked.chosen_correction().off_policy_mask) == ("auto", 0.5)

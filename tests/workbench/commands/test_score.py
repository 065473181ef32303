"""Scoring gives back the log μ that was recorded, marks it, and refuses what would not be log μ."""

import shutil
from dataclasses import replace

import pytest
from cyclopts import App
from tests.workbench.logged import drawn, store_of, text_only, without_log_mu

from klimb.errors import ConfigError
from klimb.experience import SamplingSettings
from klimb.experience.store import open_store
from klimb.training import score_samples
from klimb.workbench.commands.experience import score


@pytest.fixture
def command(tmp_path, tiny_model_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    app = App(result_action="return_value")
    app.command(score)

    def run(*arguments, model=None):
        app(["score", "old", "--model", str(model or tiny_model_path), "--into", "new", *arguments])
        return " ".join(capsys.readouterr().out.split())

    return run


@pytest.fixture
def samples(tiny_policy):
    return drawn(tiny_policy, name=tiny_policy.name)


def test_what_is_recomputed_is_what_was_recorded_and_is_marked(command, samples, tmp_path):
    store_of(tmp_path / "old", samples)
    said = command()
    new = list(open_store(tmp_path / "new").samples())
    assert [sample.sample_id for sample in new] == [sample.sample_id for sample in samples]
    for before, after in zip(samples, new, strict=True):
        assert after.log_mu == pytest.approx(before.log_mu, abs=1e-4)
        assert after.log_mu_provenance == "recomputed"
        assert after.reward == before.reward
    assert "24 of 24 samples have log_mu" in said
    assert "mean |recorded - recomputed| = " in said
    assert "more than 0.1 nats" not in said


def test_the_old_store_stays_as_it_was(command, samples, tmp_path):
    store_of(tmp_path / "old", samples)
    files = {file: file.read_bytes() for file in (tmp_path / "old").iterdir()}
    command()
    assert {file: file.read_bytes() for file in (tmp_path / "old").iterdir()} == files
    with pytest.raises(ConfigError, match="already exists"):
        command()


def test_a_sample_whose_prompt_the_chat_template_refuses_is_refused_by_reason_and_the_others_are_scored(
    command, samples, tmp_path, tiny_model_path
):
    shutil.copytree(tiny_model_path, tmp_path / "strict")
    (tmp_path / "strict" / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    plain = [text_only(sample) for sample in samples]
    led = [replace(each, prompt=({"role": "system", "content": "Hi"}, *each.prompt)) for each in plain[:3]]
    store_of(tmp_path / "old", [*led, *plain[3:]])
    said = command("--assume-plain", "--is-logging-model", model=tmp_path / "strict")
    assert "21 of 24 samples have log_mu" in said
    assert "refused 3: the prompt cannot be rendered. The first: sample" in said
    assert "refuses messages of system, user: System role not supported" in said


def test_texts_get_ids_and_log_mu(command, samples, tmp_path):
    plain = [text_only(sample) for sample in samples if sample.response]
    store_of(tmp_path / "old", plain)
    said = command("--as", "log-mu")
    new = list(open_store(tmp_path / "new").samples())
    assert len(new) == len(plain)
    by_id = {sample.sample_id: sample for sample in samples}
    same = [sample for sample in new if sample.response_ids == by_id[sample.sample_id].response_ids]
    assert same
    for sample in same:
        assert sample.log_mu == pytest.approx(by_id[sample.sample_id].log_mu, abs=1e-4)
    assert "nothing to compare with" in said


def test_the_gap_to_what_was_recorded_is_the_mean_over_tokens_and_a_large_one_is_told(command, samples, tmp_path):
    moved = [replace(sample, log_mu=tuple(value - 0.5 for value in sample.log_mu)) for sample in samples]
    store_of(tmp_path / "old", moved)
    said = command()
    assert "mean |recorded - recomputed| = 0.5 nats" in said
    assert "more than 0.1 nats a token" in said


def test_a_reference_may_be_any_model_and_any_sampling(command, samples, tmp_path, tiny_policy):
    changed = replace(samples[0], model="another", sampling=SamplingSettings(top_p=0.5), policy_version=3)
    store_of(tmp_path / "old", [changed])
    command("--as", "log-ref")
    (new,) = open_store(tmp_path / "new").samples()
    assert new.log_ref == pytest.approx(score_samples(tiny_policy, [changed], max_tokens=1000)[0], abs=1e-5)
    assert (new.log_mu, new.log_mu_provenance) == (changed.log_mu, "sampler")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sampling": SamplingSettings(top_p=0.9)}, "greedily or with top-p"),
        ({"sampling": SamplingSettings(temperature=0.0)}, "greedily or with top-p"),
        ({"sampling": None}, "--assume-plain"),
        ({"model": "another"}, "drawn by a model named another"),
        ({"policy_version": 2}, "trained further"),
        ({"tokenizer": "0123456789abcdef"}, "not of this model's tokenizer"),
        ({"response": "something else"}, "not of this model's tokenizer"),
    ],
)
def test_what_would_not_be_log_mu_is_refused_and_counted_and_alone_nothing_is_written(
    command, samples, tmp_path, changes, reason
):
    store_of(tmp_path / "old", [replace(samples[0], **changes), without_log_mu(samples[1])])
    with pytest.raises(ConfigError, match=reason):
        command("--where", f"sample_id = '{samples[0].sample_id}'")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    said = command()
    assert "1 of 2 samples have log_mu" in said
    assert reason in said
    assert open_store(tmp_path / "new").count() == 1


def test_what_a_person_knows_better_is_believed(command, samples, tmp_path):
    known = replace(samples[0], sampling=None, model="the same under another name", policy_version=2)
    store_of(tmp_path / "old", [known])
    command("--assume-plain", "--is-logging-model")
    (new,) = open_store(tmp_path / "new").samples()
    assert new.log_mu == pytest.approx(samples[0].log_mu, abs=1e-4)


def test_no_flag_makes_a_truncated_sample_plain(command, samples, tmp_path):
    store_of(tmp_path / "old", [replace(samples[0], sampling=SamplingSettings(top_k=5))])
    with pytest.raises(ConfigError, match="greedily or with top-p"):
        command("--assume-plain", "--is-logging-model")


def test_a_truncated_sample_with_its_support_is_scored_on_it(command, tiny_policy, tmp_path):
    settings = SamplingSettings(max_new_tokens=4, top_k=1)
    # Of one token left, log μ is 0; the full softmax says less.
    samples = [
        replace(each, support=tuple((token,) for token in each.response_ids))
        for each in drawn(tiny_policy, settings=settings, name=tiny_policy.name, num_prompts=2)
    ]
    store_of(tmp_path / "old", samples)
    assert "8 of 8 samples have log_mu" in command()
    for new in open_store(tmp_path / "new").samples():
        assert new.log_mu == (0.0,) * len(new.response_ids)
        assert new.log_mu_provenance == "recomputed"


def test_a_note_on_the_log_mu_that_was_there_goes_with_it(command, samples, tmp_path):
    noted = replace(samples[0], metadata={"log_mu_note": "raw", "user": "u"}, log_mu_provenance="estimated")
    store_of(tmp_path / "old", [noted])
    command()
    (new,) = open_store(tmp_path / "new").samples()
    assert "log_mu_note" not in new.metadata
    assert new.metadata["user"] == "u"


def test_batches_change_nothing(command, samples, tmp_path, monkeypatch):
    monkeypatch.setattr("klimb.workbench.store_scoring.BATCH", 5)
    store_of(tmp_path / "old", samples)
    assert "24 of 24" in command()
    assert open_store(tmp_path / "new").count() == 24

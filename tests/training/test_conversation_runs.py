"""Runs in which the policy talks with an environment: stopped, killed, replayed, shuffled, and what they learn."""

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conversations import log_probs_of_drawn
from tests.tasks.environments.scenes import is_running, wait_until
from tests.training import talking_run, talks
from tests.training.sources.test_offline import Shelf
from tests.training.talking_run import BASE, VARIANTS, OwnReward
from tests.training.test_resume import assert_same_run

from klimb.errors import Interrupted
from klimb.experience import read_samples
from klimb.policies import load_policy
from klimb.policies.stability import Stability, Trial
from klimb.tasks import Score
from klimb.training import OfflineSource, SourceSettings, read_metrics, score_samples
from klimb.training import next_batch as next_batch_module

pytestmark = pytest.mark.usefixtures("without_shape_checks")

TOLERANCE = 3e-6
"""Two passes in float32, each of which is up to 2.5e-6 from the same model in float64 (the largest of 97 tokens here):
which way the sums run differs between them, and with the processor. `test_converse.py` holds 2e-6 of fixed ids."""
"""Nats in float32: the order in which numbers are added is another one."""


@pytest.fixture
def fresh_policy(tiny_model_path: Path):
    return lambda: load_policy(str(tiny_model_path), dtype="float32", device="cpu")


def steps(settings, num_steps):
    return replace(settings, training=replace(settings.training, num_steps=num_steps))


def samples_of(folder):
    return [sample for path in sorted((folder / "rollouts").iterdir()) for sample in read_samples(path)]


def is_talk(folder):
    return max(len(sample.turns) for sample in samples_of(folder)) >= 3


FAST = ("fresh", "turns-minibatches", "gae")


@pytest.mark.parametrize(
    ("variant", "factory"),
    [
        *(pytest.param(name, "TrustedParrot", marks=() if name in FAST else pytest.mark.slow) for name in VARIANTS),
        ("replayed", "Parrot"),
        pytest.param("delayed", "Parrot", marks=pytest.mark.slow),
        pytest.param("turns-minibatches", "Parrot", marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_undisturbed_run(fresh_policy, tmp_path: Path, variant, factory):
    settings = VARIANTS[variant]
    talking_run.run(fresh_policy(), tmp_path / "straight", settings, factory=factory)
    talking_run.run(fresh_policy(), tmp_path / "torn", steps(settings, 2), factory=factory)
    result = talking_run.run(fresh_policy(), tmp_path / "torn", settings, factory=factory, resume=True)
    assert result.num_steps == 4
    assert_same_run(tmp_path / "straight", tmp_path / "torn")
    assert is_talk(tmp_path / "straight")
    assert read_metrics(tmp_path / "straight" / "metrics.jsonl")[-1]["num_turns_mean"] > 1


MARKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ '~' + m['content'] if m['role'] == 'assistant' else m['content'] }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that marks what the policy said before."""


@pytest.mark.parametrize(
    "variant",
    ["turns-minibatches", *(pytest.param(name, marks=pytest.mark.slow) for name in ("replayed", "gae", "filtered"))],
)
def test_a_run_whose_template_rewrites_history_trains_on_turns_as_samples(
    fresh_policy, tmp_path: Path, monkeypatch, variant
):
    rewrites = Stability(trials=(Trial(conversation="any", verdict="rewrites"),), end_of_turn="<|im_end|>")
    monkeypatch.setattr(talks, "find_stability", lambda policy, environments: rewrites)

    def marking():
        policy = fresh_policy()
        policy.tokenizer.chat_template = MARKS
        return policy

    settings = VARIANTS[variant]
    talking_run.run(marking(), tmp_path / "straight", settings)
    talking_run.run(marking(), tmp_path / "torn", steps(settings, 2))
    talking_run.run(marking(), tmp_path / "torn", settings, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "torn")
    samples = samples_of(tmp_path / "straight")
    episodes = {sample.episode: [each for each in samples if each.episode == sample.episode] for sample in samples}
    assert max(len(members) for name, members in episodes.items() if name) == 3
    for name, members in episodes.items():
        if name:
            assert len({sample.reward for sample in members}) == 1
            assert [len(sample.prompt) for sample in members] == [1, 3, 5][: len(members)]
    lines = read_metrics(tmp_path / "straight" / "metrics.jsonl")
    num_of_first = sum("-t000001-" in sample.group_id for sample in samples)
    assert lines[0]["num_samples"] == lines[0]["num_groups"] * settings.sampling.num_samples < num_of_first


def test_an_error_in_the_middle_of_a_conversation_is_rescued_and_done_again(fresh_policy, tmp_path: Path):
    talking_run.run(fresh_policy(), tmp_path / "straight", BASE)

    class Failing(OwnReward):
        num_calls = 0

        def score_many(self, problems, responses):
            Failing.num_calls += 1
            if Failing.num_calls == 4:
                raise RuntimeError("as if the power went")
            return super().score_many(problems, responses)

        def identity(self):
            return {"scorer": OwnReward()}

    class Same(OwnReward):
        def identity(self):
            return {"scorer": OwnReward()}

    with pytest.raises(RuntimeError, match="power"):
        talking_run.run(fresh_policy(), tmp_path / "torn", BASE, scorer=Failing())
    talking_run.run(fresh_policy(), tmp_path / "torn", BASE, scorer=Same(), resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "torn")


def test_a_signal_in_the_middle_lets_the_step_end_and_leaves_no_process(fresh_policy, tmp_path: Path):
    def interrupt(metrics, samples):
        if metrics["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        talking_run.run(fresh_policy(), tmp_path, BASE, factory="Parrot", on_step=interrupt)
    talking_run.run(fresh_policy(), tmp_path, BASE, factory="Parrot", resume=True)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4


def start(model_path, folder, variant, **changes):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.training.talking_run",
            str(model_path),
            str(folder),
            variant,
            json.dumps(changes),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        cwd=Path(__file__).parents[2],
    )


def children_of(pid):
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if int((each / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(each.name), *children_of(int(each.name))]
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "variant", ["fresh", *(pytest.param(name, marks=pytest.mark.slow) for name in ("replayed", "delayed", "turns"))]
)
def test_killed_and_resumed_is_bit_for_bit_the_undisturbed_run(fresh_policy, tiny_model_path, tmp_path: Path, variant):
    talking_run.run(fresh_policy(), tmp_path / "straight", VARIANTS[variant], factory="Parrot")
    process = start(tiny_model_path, tmp_path / "torn", variant, factory="Parrot", sleep_seconds=0.3)
    line = process.stdout.readline()
    while line not in ("3\n", ""):
        line = process.stdout.readline()
    held = children_of(process.pid)
    process.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    assert held
    wait_until(lambda: not any(map(is_running, held)))
    talking_run.run(fresh_policy(), tmp_path / "torn", VARIANTS[variant], factory="Parrot", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "torn")


@pytest.mark.parametrize("factory", ["TrustedParrot", pytest.param("Parrot", marks=pytest.mark.slow)])
def test_log_mu_is_what_the_policy_gives_every_token_that_was_drawn(fresh_policy, tmp_path: Path, factory):
    talking_run.run(fresh_policy(), tmp_path, steps(BASE, 1), factory=factory)
    policy, samples = fresh_policy(), samples_of(tmp_path)
    assert max(sum(turn.is_drawn for turn in sample.turns) for sample in samples) == 3
    for sample, scored in zip(samples, score_samples(policy, samples, max_tokens=4096), strict=True):
        assert len(sample.log_mu) == len(scored) == sample.num_drawn < len(sample.response_ids) or not sample.turns[1:]
        assert sample.log_mu == pytest.approx(scored, abs=TOLERANCE)
        assert sample.log_mu == pytest.approx(log_probs_of_drawn(policy, sample), abs=TOLERANCE)


def test_a_reference_that_is_the_policy_gives_log_ref_of_what_was_drawn(fresh_policy, tmp_path: Path):
    talking_run.run(fresh_policy(), tmp_path, steps(BASE, 1))
    for sample in samples_of(tmp_path):
        assert sample.log_ref is None or sample.log_ref == pytest.approx(sample.log_mu, abs=TOLERANCE)


def test_recomputed_log_mu_has_values_of_drawn_tokens_only(fresh_policy, tmp_path: Path, monkeypatch):
    seen = []
    attach = next_batch_module._attach_log_mu

    def watch(state, used, settings):
        rescored, metrics = attach(state, used, settings)
        seen.append((used, rescored))
        return rescored, metrics

    monkeypatch.setattr(next_batch_module, "_attach_log_mu", watch)
    talking_run.run(fresh_policy(), tmp_path, steps(VARIANTS["recomputed"], 1))
    ((used, rescored),) = seen
    for before, after in zip(used, rescored, strict=True):
        assert after.log_mu_provenance == "recomputed" and len(after.log_mu) == after.num_drawn
        assert after.log_mu == pytest.approx(before.log_mu, abs=TOLERANCE)


def test_shuffled_rewards_are_the_same_rewards_and_no_turns(fresh_policy, tmp_path: Path):
    plain = replace(VARIANTS["shuffled"], advantages=BASE.advantages)
    talking_run.run(fresh_policy(), tmp_path / "plain", steps(plain, 1))
    talking_run.run(fresh_policy(), tmp_path / "shuffled", steps(VARIANTS["shuffled"], 1))
    before, after = samples_of(tmp_path / "plain"), samples_of(tmp_path / "shuffled")
    # Their names say whose they are: another run, whose environments have other seeds.
    assert all(turn.reward is None for sample in after for turn in sample.turns)
    assert any(turn.reward is not None for sample in before for turn in sample.turns)
    assert {sample.metadata["rewards"] for sample in after} == {"shuffled"}


def test_rollouts_of_conversations_are_a_log_to_train_on(fresh_policy, tmp_path: Path):
    talking_run.run(fresh_policy(), tmp_path / "drawn", steps(BASE, 2))
    samples, policy = samples_of(tmp_path / "drawn"), fresh_policy()
    before = {name: value.detach().clone() for name, value in policy.trainable().items()}
    settings = replace(steps(BASE, 2), sources=SourceSettings(log=1.0), environment=None)
    logs = [OfflineSource(Shelf(samples), policy, source="log")]
    talking_run.run(policy, tmp_path / "log", settings, logs=logs, problems=(), dialogues=None)
    line = read_metrics(tmp_path / "log" / "metrics.jsonl")[-1]
    assert line["log/num_samples"] == 9 and line["log/num_refused"] == 0
    assert any(not torch.equal(value, before[name]) for name, value in policy.trainable().items())


def test_evaluations_hold_conversations_with_the_same_environments_each_time(fresh_policy, tmp_path: Path):
    held_out = talking_run.tiny_run.PROBLEMS[:2]
    settings = replace(
        BASE,
        evaluation=replace(BASE.evaluation, every_steps=1, num_samples=2),
        optimizer=replace(BASE.optimizer, learning_rate=1e-12),
    )
    talking_run.run(fresh_policy(), tmp_path, steps(settings, 2), held_out=held_out)
    first, second = (line["evaluation_mean"] for line in read_metrics(tmp_path / "metrics.jsonl"))
    assert first == second > 0


class Digest:
    """A number that the conversation decides, and that nobody can guess."""

    def score_many(self, problems, responses):
        return [Score(reward=self.of(response)) for response in responses]

    def of(self, response):
        told = json.dumps([dict(message) for message in response.messages], sort_keys=True)
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:4], "big") / 2**32


def test_a_reward_that_nobody_can_guess_is_not_learnt(fresh_policy, tmp_path: Path):
    settings = replace(BASE, sampling=replace(BASE.sampling, num_prompts=4, num_samples=8))
    talking_run.run(fresh_policy(), tmp_path, steps(settings, 4), scorer=Digest())
    rewards = [sample.reward for sample in samples_of(tmp_path)[32:]]
    assert len(set(rewards)) > 90
    # Uniform in [0, 1): four standard errors of the mean.
    assert abs(statistics.fmean(rewards) - 0.5) < 4 * (1 / 12 / len(rewards)) ** 0.5

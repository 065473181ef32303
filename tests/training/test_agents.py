"""Programs that bring their own loop: their calls become the turns of samples, and what goes wrong costs one sample."""

import contextlib
import shlex
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from tests.training import tiny_run
from tests.training.talking_run import BASE, OwnReward
from tests.training.talks import CUT, ENDS, SETTINGS, Script, named, template
from tests.training.test_resume import assert_same_run

from klimb.experience import SamplingSettings, read_samples
from klimb.findings.conversations import ENVIRONMENT_ERROR
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.tasks.environments import EnvironmentSettings
from klimb.tasks.programs import program
from klimb.training import read_metrics
from klimb.training.agents import Agents
from klimb.training.agents.talk import OVERRULED
from klimb.training.dialogues import ENDED
from klimb.web.serve.agents import AgentEndpoint

pytestmark = pytest.mark.usefixtures("without_shape_checks")

PROGRAM = Path(__file__).with_name("agent_program.py")


def command(does: str) -> str:
    return shlex.join(["python", str(PROGRAM), does])


@contextlib.contextmanager
def agents(policy, does, sampler=None, **settings):
    # On a busy machine a program may be slow without hanging.
    told = EnvironmentSettings(**{"command": command(does), "call_seconds": 120.0, **settings})
    with AgentEndpoint(policy) as endpoint:
        yield Agents(
            policy=policy, sampler=sampler or LocalSampler(policy), endpoint=endpoint, settings=told, is_stable=True
        )


def hold(policy, does, lines, *, sampling=SETTINGS, **settings):
    with agents(policy, does, Script(policy, lines), **settings) as talks:
        return talks.hold(
            [named(name) for name in lines], seeds=range(len(lines)), settings=sampling, generator=torch.Generator()
        )


def samples_of(policy, conversation):
    return conversation.samples(template(policy), with_log_model=True)


def test_calls_that_go_on_from_each_other_are_the_turns_of_one_sample(tiny_policy):
    (held,) = hold(tiny_policy, "two_turns", {"a": ["banana", "so it is"]})
    (sample,) = samples_of(tiny_policy, held)
    first, heard, second = sample.turns
    assert (first.text, heard.role, heard.text, second.text) == (
        "banana",
        "user",
        "It has 3 vowels. And now?",
        "so it is",
    )
    assert (held.ended, sample.metadata, sample.episode) == ("over", {ENDED: "over"}, "")
    assert held.response.environment_reward == held.outcome.reward == pytest.approx(3.8)
    assert sample.prompt_ids == tiny_policy.render(named("a").messages)
    # Token in, token out: what was drawn, the template's own text, what was drawn; gradients on drawn tokens alone.
    parts = [
        "banana<|im_end|>",
        "\n<|im_start|>user\nIt has 3 vowels. And now?<|im_end|>\n<|im_start|>assistant\n",
        "so it is<|im_end|>",
    ]
    ids = [tiny_policy.tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts]
    assert sample.response_ids == tuple(token for part in ids for token in part)
    assert [(turn.is_drawn, turn.num_tokens) for turn in sample.turns] == [
        (drawn, len(part)) for drawn, part in zip((True, False, True), ids, strict=True)
    ]
    assert len(sample.log_mu) == sample.num_drawn == len(ids[0]) + len(ids[2])
    assert [message["role"] for message in held.messages] == ["assistant", "user", "assistant"]


def test_a_cut_turn_goes_on_behind_the_end_that_the_template_has(tiny_policy):
    (held,) = hold(tiny_policy, "two_turns", {"a": ["ban" + CUT, "so it is"]})
    (sample,) = samples_of(tiny_policy, held)
    assert tiny_policy.tokenizer.decode(sample.response_ids).startswith("ban<|im_end|>\n<|im_start|>user\nIt has 1")


MARKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ '~' + m['content'] if m['role'] == 'assistant' else m['content'] }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that marks what the policy said before."""


def test_a_template_that_rewrites_what_was_said_splits_too(tiny_policy):
    tiny_policy.tokenizer.chat_template = MARKS
    with agents(tiny_policy, "two_turns", Script(tiny_policy, {"a": ["banana", "so it is"]})) as talks:
        (held,) = replace(talks, is_stable=False).hold(
            [named("a")], seeds=[0], settings=SETTINGS, generator=torch.Generator()
        )
    first, second = samples_of(tiny_policy, held)
    assert (first.response, second.response) == ("banana", "so it is") and first.episode == second.episode
    assert "~banana" in tiny_policy.tokenizer.decode(second.prompt_ids)
    assert [message["role"] for message in held.messages] == ["assistant", "user", "assistant"]


def test_a_turn_with_a_control_token_within_is_kept_as_it_was_drawn(tiny_policy):
    script = Script(tiny_policy, {"a": ["x", "so it is"]})
    drawn = (5, tiny_policy.tokenizer.convert_tokens_to_ids("<|im_start|>"), 9, tiny_policy.end_ids[0])
    script.ids = {("a", 0): drawn}
    with agents(tiny_policy, "two_turns", script) as talks:
        (held,) = talks.hold([named("a")], seeds=[0], settings=SETTINGS, generator=torch.Generator())
    (sample,) = samples_of(tiny_policy, held)
    assert sample.response_ids[:4] == drawn and len(sample.turns) == 3


def test_a_rewritten_history_splits_into_samples_of_one_episode(tiny_policy):
    (held,) = hold(tiny_policy, "rewrites", {"a": ["one", "two"]})
    first, second = samples_of(tiny_policy, held)
    assert (first.response, second.response) == ("one", "two")
    assert first.episode == second.episode != ""
    assert second.prompt[-1]["content"] == "Forget what you said." and len(second.prompt) == 2
    assert second.prompt_ids == tiny_policy.render(second.prompt)
    assert held.outcome.reward == 1.0
    assert [message["content"] for message in held.messages] == ["one", "Forget what you said.", "two"]


def test_tools_of_the_program_are_offered_and_their_calls_are_read(tiny_policy):
    asks = '<tool_call>{"name": "count", "arguments": {"text": "banana"}}</tool_call>'
    (held,) = hold(tiny_policy, "with_tools", {"a": [asks, "three"]}, call_format="hermes")
    (sample,) = samples_of(tiny_policy, held)
    first, result, second = sample.turns
    assert [(call.name, call.arguments) for call in first.calls] == [("count", '{"text": "banana"}')]
    assert (result.role, result.name, result.text, second.text) == ("tool", "count", "3", "three")
    assert (held.outcome.reward, held.outcome.num_calls) == (1.0, 1)
    assert '"name": "count"' in sample.tools


def test_an_answer_can_be_had_as_a_stream(tiny_policy):
    (held,) = hold(tiny_policy, "streams", {"a": ["one"]})
    assert held.outcome.reward == 1.0


def test_what_goes_wrong_costs_its_own_sample_alone(tiny_policy):
    (held,) = hold(tiny_policy, "crashes", {"a": ["one"]})
    (sample,) = samples_of(tiny_policy, held)
    assert "exit code 1: ValueError: no such game" in held.why_unscored and held.outcome.reward is None
    assert sample.metadata[ENDED] == "error" and "no such game" in sample.metadata[ENVIRONMENT_ERROR]
    (held,) = hold(tiny_policy, "never_calls", {"a": []})
    (sample,) = samples_of(tiny_policy, held)
    assert "made no call that could be answered" in held.why_unscored and sample.response_ids == ()
    (held,) = hold(tiny_policy, "wrong_reward", {"a": ["one"]})
    assert "reward 'much', expected a finite number" in held.why_unscored


def test_a_program_that_hangs_is_ended_with_what_it_started(tiny_policy):
    started = time.monotonic()
    (held,) = hold(tiny_policy, "hangs", {"a": ["one"]}, call_seconds=0.3)
    assert "0.3 s without a call" in held.why_unscored and held.outcome.is_out_of_time
    (held,) = hold(tiny_policy, "leaves_a_child", {"a": ["one"]})
    assert held.outcome.reward == 1.0 and time.monotonic() - started < 30


def test_a_program_that_makes_no_call_in_time_is_ended(tiny_policy, monkeypatch):
    monkeypatch.setattr(program, "START_SECONDS", 0.0)
    with agents(tiny_policy, "hangs", call_seconds=0.2) as talks:
        talks = replace(talks, settings=replace(talks.settings, command="sleep 600"))
        (held,) = talks.hold([named("a")], seeds=[0], settings=SETTINGS, generator=torch.Generator())
    assert "0.2 s without a call" in held.why_unscored and not held.segments


def test_a_call_beyond_the_limit_is_refused_and_the_program_says_what_that_is_worth(tiny_policy):
    (held,) = hold(tiny_policy, "too_often", {"a": ["one"]}, max_turns=1)
    assert (held.ended, held.outcome.reward, held.why_unscored) == ("max_turns", 0.5, "")
    assert len(samples_of(tiny_policy, held)[0].turns) == 1
    (held,) = hold(tiny_policy, "too_often", {"a": ["one"]}, max_tokens=2)
    assert (held.ended, held.outcome.reward) == ("max_tokens", 0.5)
    (held,) = hold(tiny_policy, "two_turns", {"a": ["one"]}, max_turns=1)
    assert "exit code 1" in held.why_unscored


def test_turns_are_drawn_as_the_run_says_and_it_is_said_once(tiny_policy, caplog):
    with agents(tiny_policy, "asks_for_more", Script(tiny_policy, {"a": ["one", "two"]})) as talks:
        for _ in range(2):
            (held,) = talks.hold([named("a")], seeds=[0], settings=SETTINGS, generator=torch.Generator())
    (sample,) = samples_of(tiny_policy, held)
    assert sample.sampling == SETTINGS
    assert sample.metadata[OVERRULED] == "frequency_penalty, seed, temperature, top_p"
    assert sum("of their own" in message for message in caplog.messages) == 1


def other_keys(tiny_policy, taken):
    with AgentEndpoint(tiny_policy) as endpoint:
        key = endpoint.open(taken.append)
        closed = endpoint.open(taken.append)
        endpoint.close(closed)
        for wrong in ("-", "sk-klimb-of-somebody-else", closed):
            yield endpoint, wrong, 401
        yield endpoint, key, 200


def test_a_key_is_good_for_its_own_sample_alone_while_it_is_drawn(tiny_policy):
    taken = []
    for endpoint, key, status in other_keys(tiny_policy, taken):
        headers = {"authorization": f"Bearer {key}"}
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        if status == 401:
            answer = httpx.post(f"{endpoint.base_url}/chat/completions", json=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.get(f"{endpoint.base_url}/models", headers=headers).status_code == status
    assert taken == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_no_rollout_can_be_is_refused(tiny_policy, more, param):
    taken = []
    with AgentEndpoint(tiny_policy) as endpoint:
        headers = {"authorization": f"Bearer {endpoint.open(taken.append)}"}
        body = {"messages": [{"role": "user", "content": "Hi"}], **more}
        answer = httpx.post(f"{endpoint.base_url}/chat/completions", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"], taken) == (400, param, [])


def is_random_run(policy, folder, settings, **changes):
    sampler = changes.pop("sampler", LocalSampler(policy))
    with agents(policy, "is_random", sampler, max_turns=3) as talks:
        return tiny_run.run(policy, folder, settings, sampler=sampler, scorer=OwnReward(), dialogues=talks, **changes)


def with_steps(num_steps):
    sampling = replace(BASE.sampling, num_prompts=2, num_samples=2)
    told = EnvironmentSettings(command=command("is_random"), max_turns=3, call_seconds=120.0)
    return replace(BASE, sampling=sampling, environment=told, training=replace(BASE.training, num_steps=num_steps))


def test_the_same_seeds_give_the_same_samples_whatever_calls_come_first(tiny_policy):
    sampling = SamplingSettings(max_new_tokens=8, stop=ENDS)
    with agents(tiny_policy, "is_random") as talks:
        twice = [
            talks.hold(
                [named("a"), named("b")], seeds=[3, 4], settings=sampling, generator=torch.Generator().manual_seed(1)
            )
            for _ in range(2)
        ]
    first, second = ([each.segments for each in held] for held in twice)
    assert first == second and first[0] != first[1]


@pytest.mark.slow
def test_stopped_and_resumed_is_bit_for_bit_the_undisturbed_run(tiny_model_path, tmp_path):
    def fresh():
        return load_policy(str(tiny_model_path), dtype="float32", device="cpu")

    is_random_run(fresh(), tmp_path / "straight", with_steps(3))
    is_random_run(fresh(), tmp_path / "torn", with_steps(2))
    is_random_run(fresh(), tmp_path / "torn", with_steps(3), resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "torn")
    samples = [each for path in sorted((tmp_path / "straight" / "rollouts").iterdir()) for each in read_samples(path)]
    assert {len(sample.turns) for sample in samples} == {3}
    assert read_metrics(tmp_path / "straight" / "metrics.jsonl")[-1]["num_turns_mean"] == 2
    # The programs of a group are told one seed, and each group another.
    asked = {(sample.group_id, sample.turns[1].text) for sample in samples}
    assert len(asked) == len({group for group, _ in asked}) == 6

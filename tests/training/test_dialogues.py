"""Conversations that are held: their turns, how each ends, what it costs when an environment is lost, what is split."""

import json
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.policies.chat_tokenizers import chat_tokenizer
from tests.tasks.environments.scenes import LineFormat, is_running, wait_until
from tests.training import parrots
from tests.training.talks import CUT, ENDS, SETTINGS, Script, hold, named, running, template
from transformers import LlamaConfig, LlamaForCausalLM

from klimb.errors import ConfigError
from klimb.experience import SamplingSettings, ToolCall
from klimb.policies import Policy, load_policy
from klimb.policies.stability import check_history
from klimb.policies.tokenizer import decode_ids
from klimb.policies.turns import history_is_kept
from klimb.samplers import LocalSampler
from klimb.tasks import ProblemSet, Score
from klimb.tasks.environment_problems import seed_of
from klimb.tasks.environments import EnvironmentSettings
from klimb.tasks.tools import get_format
from klimb.training.dialogues import ENDED, ENVIRONMENT_ERROR, TOKENIZING, Dialogues, score_conversations
from klimb.training.filtered_groups import filter_group
from klimb.training.rollouts import RolloutContext, RolloutWorker, measure_rollouts, sample_and_score
from klimb.training.settings import AdvantageSettings
from klimb.workbench.environments import make_dialogues, make_environments

pytestmark = pytest.mark.usefixtures("without_shape_checks")

COUNT = 'CALL count {"up": 2}'


def sample_of(policy, conversation):
    (sample,) = conversation.samples(template(policy), with_log_model=True)
    return sample


def spans(sample):
    return [(turn.role, turn.num_tokens) for turn in sample.turns]


@pytest.fixture(params=["Fragile", "TrustedFragile"])
def fragile(request) -> str:
    """In a process of its own, and in this one."""
    return request.param


def test_turns_their_spans_calls_and_rewards(tiny_policy, fragile):
    (held,) = hold(tiny_policy, fragile, {"a": [f"I count.\n{COUNT}", "so far", "bye"]}, answers=["x"])
    assert (held.ended, held.outcome.reward, held.outcome.num_calls) == ("over", 4.0, 1)
    assert held.prompt == ({"role": "user", "content": "<a> Go on. (x)"},)
    assert held.prompt_ids == tiny_policy.render(held.prompt)
    sample = sample_of(tiny_policy, held)
    first, called, second, said, last = sample.turns
    assert (first.text, first.calls) == (f"I count.\n{COUNT}", (ToolCall(name="count", arguments='{"up": 2}'),))
    assert (called.role, called.name, called.text, called.error) == ("tool", "count", "2", "")
    assert (second.text, said.role, said.text, last.text) == ("so far", "user", "heard 3", "bye")
    # What was drawn, and the template's own text between: the line's end behind the end token comes with the answer.
    end, between = "<|im_end|>", "\n<|im_start|>{}<|im_end|>\n<|im_start|>assistant\n"
    parts = [f"I count.\n{COUNT}{end}", between.format("tool\n2"), f"so far{end}", between.format("user\nheard 3")]
    encode = tiny_policy.tokenizer
    ids = [encode(part, add_special_tokens=False)["input_ids"] for part in [*parts, f"bye{end}"]]
    assert sample.response_ids == tuple(token for part in ids for token in part)
    assert spans(sample) == [(turn.role, len(part)) for turn, part in zip(sample.turns, ids, strict=True)]
    assert [turn.finish_reason for turn in sample.turns if turn.is_drawn] == ["stop"] * 3
    assert len(sample.log_mu) == len(sample.log_ref) == sum(map(len, ids[::2]))
    assert sample.log_mu == tuple(-0.01 * place for part in ids[::2] for place in range(len(part)))
    assert json.loads(sample.tools)[0]["function"]["name"] == "count"
    assert sample.episode == "" and sample.metadata == {ENDED: "over"}


def test_what_was_drawn_is_not_encoded_again(tiny_policy):
    script = Script(tiny_policy, {"a": ["x", "bye"]})
    unusual = (5, tiny_policy.tokenizer.unk_token_id, 9, tiny_policy.end_ids[0])
    script.ids = {("a", 0): unusual}
    with running(tiny_policy, "TrustedFragile", sampler=script) as dialogues:
        (held,) = dialogues.hold([named("a")], seeds=[0], settings=SETTINGS, generator=torch.Generator())
    assert sample_of(tiny_policy, held).response_ids[:4] == unusual


def test_a_tokenizer_is_used_by_one_thread_at_a_time(tiny_policy, monkeypatch):
    is_held = []

    def decode_turn(self, ids):
        is_held.append(TOKENIZING.locked())
        return decode_ids(self.tokenizer, ids[:-1])

    monkeypatch.setattr(Policy, "decode_turn", decode_turn)
    hold(tiny_policy, "Fragile", {"a": ["hi", "bye"], "b": ["ho", "bye"]})
    assert is_held == [True] * 4


def test_messages_and_view_are_there_for_the_reward(tiny_policy, fragile):
    (held,) = hold(tiny_policy, fragile, {"a": [COUNT, "bye"]})
    response = held.response
    assert (response.text, response.finish_reason, response.environment_reward) == ("bye", "stop", 3.0)
    assert [message["role"] for message in response.messages] == ["assistant", "tool", "assistant"]
    assert response.environment.unseal().num_heard == 3
    assert response.num_tokens == len(COUNT) + 1 + len("bye") + 1


def test_the_rewards_of_turns_are_the_reward_where_the_environment_has_none(tiny_policy):
    (held,) = hold(tiny_policy, "TrustedParrot", {"a": ["aa", "b", "a"]})
    rewards = [turn.reward for turn in sample_of(tiny_policy, held).turns if turn.is_drawn]
    assert held.response.environment_reward == pytest.approx(sum(rewards)) and held.outcome.reward is None
    assert rewards[0] == pytest.approx(2 / 3, abs=1 / 8)
    (longer,) = hold(
        tiny_policy, "TrustedParrot", {"a": ["aa", "b" + CUT]}, sampling=SamplingSettings(max_new_tokens=1)
    )
    assert longer.response.environment_reward == rewards[0]


@pytest.mark.parametrize(
    ("ended", "lines", "settings", "roles"),
    [
        ("over", ["bye"], {}, ["assistant"]),
        ("over", ["hi", "bye"], {"max_turns": 2}, ["assistant", "user", "assistant"]),
        ("max_new_tokens", ["hi", "a" * 60 + CUT], {}, ["assistant", "user", "assistant"]),
        ("context", ["hi", "a" * 59 + CUT], {}, ["assistant", "user", "assistant"]),
        ("max_turns", ["hi", "ho"], {"max_turns": 2}, ["assistant", "user", "assistant", "user"]),
        ("max_turns", ["hi"], {"max_turns": 1}, ["assistant", "user"]),
        # <|im_end|>, then 41 of the template and the answer: 3 + 44 tokens, and another 47.
        ("max_tokens", ["hi", "ho"], {"max_tokens": 60}, ["assistant", "user", "assistant", "user"]),
        ("sample_seconds", ["sleep"], {"sample_seconds": 0.2}, ["assistant", "user"]),
        ("error", ["hi", "raise"], {}, ["assistant", "user", "assistant"]),
    ],
)
def test_each_way_to_end(tiny_policy, fragile, ended, lines, settings, roles):
    (held,) = hold(tiny_policy, fragile, {"a": lines}, **settings)
    sample = sample_of(tiny_policy, held)
    assert (held.ended, sample.metadata[ENDED]) == (ended, ended)
    assert [turn.role for turn in sample.turns] == roles
    if roles[-1] == "user":
        assert sample.turns[-1].num_tokens == 0
    assert sum(turn.num_tokens for turn in sample.turns) == len(sample.response_ids)
    assert (held.why_unscored != "") == (ended == "error")
    assert len(held.messages) == len(roles)


def test_max_tokens_counts_what_was_put_in(tiny_policy):
    (held,) = hold(tiny_policy, "TrustedFragile", {"a": ["hi", "bye"]}, max_tokens=1000)
    size = len(sample_of(tiny_policy, held).response_ids) - len("bye") - 1
    (at,) = hold(tiny_policy, "TrustedFragile", {"a": ["hi", "bye"]}, max_tokens=size)
    (above,) = hold(tiny_policy, "TrustedFragile", {"a": ["hi", "bye"]}, max_tokens=size + 1)
    assert (at.ended, above.ended) == ("max_tokens", "over")


def test_a_prompt_without_room_is_no_response(tiny_policy):
    room = SamplingSettings(max_new_tokens=tiny_policy.max_positions - 10)
    (held,) = hold(tiny_policy, "TrustedFragile", {"a": ["bye"]}, sampling=room)
    assert held.ended == "context" and "could be drawn" in held.why_unscored
    sample = sample_of(tiny_policy, held)
    assert (sample.response_ids, sample.log_mu, sample.metadata[ENDED]) == ((), None, "context")
    assert sample.prompt_ids == tiny_policy.render(held.prompt)
    group = filter_group([replace(sample, reward=1.0)] * 2, AdvantageSettings(kind="batch-mean", group_filter=False))
    assert not group.used


def test_the_context_ends_a_conversation_between_turns(tiny_policy):
    with running(tiny_policy, "Wordy", sampler=LocalSampler(tiny_policy)) as dialogues:
        held = dialogues.hold(
            [named(name) for name in "abc"],
            seeds=[0] * 3,
            settings=SamplingSettings(max_new_tokens=20, stop=("a", "e", "i", " ", "1")),
            generator=torch.Generator().manual_seed(1),
        )
    for each in held:
        sample = sample_of(tiny_policy, each)
        assert len(sample.prompt_ids) + len(sample.response_ids) <= tiny_policy.max_positions
        assert each.ended in ("context", "max_new_tokens") and len(each.messages) == len(sample.turns)
        assert (each.ended == "max_new_tokens") == (sample.turns[-1].num_tokens == 20)


REFUSES_WORDS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and 'zz' in m['content'] %}{{ raise_exception('no zz') }}"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("lines", [["zz", "so", "bye"], ["zz", "bye"]])
def test_a_template_that_refuses_what_the_policy_said_ends_that_conversation(tiny_policy, lines):
    tiny_policy.tokenizer.chat_template = REFUSES_WORDS
    refused, other = hold(tiny_policy, "TrustedFragile", {"a": lines, "b": ["hi", "bye"]})
    assert (refused.ended, other.ended) == ("template" if len(lines) == 3 else "over", "over")
    assert [turn.text for turn in sample_of(tiny_policy, refused).turns if turn.is_drawn] == lines[:2]
    assert len(refused.messages) == (4 if len(lines) == 3 else 3)


def test_a_template_that_refuses_what_came_in_ends_that_conversation(tiny_policy):
    tiny_policy.tokenizer.chat_template = REFUSES_WORDS.replace("'assistant' and 'zz'", "'tool' and ''")
    refused, other = hold(tiny_policy, "TrustedFragile", {"a": [COUNT, "bye"], "b": ["hi", "bye"]})
    assert (refused.ended, other.ended) == ("template", "over")
    assert [turn.role for turn in sample_of(tiny_policy, refused).turns] == ["assistant", "tool"]


def test_a_template_that_refuses_the_opening_costs_that_sample(tiny_policy):
    tiny_policy.tokenizer.chat_template = REFUSES_WORDS.replace("'assistant' and 'zz'", "'user' and '(zz)'")
    refused, other = hold(tiny_policy, "TrustedFragile", {"a": [], "b": ["bye"]}, answers=["zz", "x"])
    assert (refused.ended, refused.segments, other.ended) == ("template", (), "over")


def test_lost_environments_cost_their_samples_alone(tiny_policy):
    lines = {"a": ["hi", "exit"], "b": ["hi", "ho", "bye"], "c": [], "d": ["raise"], "e": ["bye"]}
    held = hold(tiny_policy, "Fragile", lines, answers=["", "", "raise", "", ""], max_processes=5)
    assert [each.ended for each in held] == ["error", "over", "error", "error", "over"]
    assert [bool(each.why_unscored) for each in held] == [True, False, True, True, False]
    samples = [sample_of(tiny_policy, each) for each in held]
    assert [ENVIRONMENT_ERROR in each.metadata for each in samples] == [True, False, True, True, False]
    assert "exit code 3" in samples[0].metadata[ENVIRONMENT_ERROR]
    assert "no game today" in samples[2].metadata[ENVIRONMENT_ERROR] and samples[2].response_ids == ()
    assert [turn.text for turn in samples[0].turns if turn.is_drawn] == ["hi", "exit"]
    asked = []

    class Scorer:
        def score_many(self, problems, responses):
            asked.extend(problem.problem_id for problem in problems)
            return [Score(reward=response.environment_reward) for response in responses]

    scores = score_conversations(Scorer(), [named(name) for name in lines], held)
    assert asked == ["b", "e"]
    assert [score.reward for score in scores] == [None, 3.0, None, None, 1.0]
    assert "its environment is lost" in scores[0].reason
    counted = []

    class Counting(Scorer):
        def count(self, score):
            counted.append(score.reason)
            return score

    assert score_conversations(Counting(), [named(name) for name in lines], held) == scores
    assert counted == [scores[place].reason for place in (0, 2, 3)]


def test_environments_that_share_a_process_are_lost_together_and_others_go_on(tiny_policy):
    lines = {"a": ["exit"], "b": ["hi", "bye"], "c": ["hi", "bye"], "d": ["hi", "bye"]}
    held = hold(tiny_policy, "Fragile", lines, max_processes=2)
    assert [each.ended for each in held] == ["error", "over", "error", "over"]


def test_the_next_conversations_have_environments_again(tiny_policy):
    script = Script(tiny_policy, {"a": ["exit"], "b": ["bye"]})
    with running(tiny_policy, "Fragile", sampler=script, max_processes=1) as dialogues:
        for name, ended in (("a", "error"), ("b", "over")):
            (held,) = dialogues.hold([named(name)], seeds=[0], settings=SETTINGS, generator=torch.Generator())
            assert held.ended == ended


def test_the_seed_makes_the_environment(tiny_policy):
    script = Script(tiny_policy, {name: ["a", "a", "a"] for name in "abc"})
    with running(tiny_policy, "Parrot", sampler=script) as dialogues:
        one, same, other = dialogues.hold(
            [named(name) for name in "abc"], seeds=[1, 1, 2], settings=SETTINGS, generator=torch.Generator()
        )
    assert [turn.text for turn in sample_of(tiny_policy, one).turns] == [
        turn.text for turn in sample_of(tiny_policy, same).turns
    ]
    assert one.prompt[-1]["content"].split("[")[1] == same.prompt[-1]["content"].split("[")[1]
    assert one.turn_reward == same.turn_reward != other.turn_reward


class Counting:
    """Gives each response the environment's reward, else its length."""

    def score_many(self, problems, responses):
        return [
            Score(
                reward=float(len(response.text) if response.environment_reward is None else response.environment_reward)
            )
            for response in responses
        ]


def draw(dialogues, problems, *, num_samples=2, shuffle=None, scorer=None, seed=0, **sampling):
    settings = SamplingSettings(**({"max_new_tokens": 60, "stop": ENDS} | sampling))
    worker = RolloutWorker(
        policy=dialogues.policy,
        sampler=dialogues.sampler,
        scorer=scorer or Counting(),
        problems=problems,
        dialogues=dialogues,
    )
    return sample_and_score(
        worker,
        problems,
        RolloutContext(seed=7, step=3, policy_version=0, record_log_ref=False),
        num_samples=num_samples,
        sampling=settings,
        generator=torch.Generator().manual_seed(seed),
        shuffle=shuffle,
    ).groups


def test_the_environments_of_a_group_have_the_groups_seed(tiny_policy):
    seen = []

    class Spy(parrots.TrustedParrot):
        def reset(self, seed, **row):
            seen.append(seed)
            return super().reset(**row)

    with running(tiny_policy, Spy, sampler=LocalSampler(tiny_policy)) as dialogues:
        groups = draw(dialogues, [named("a"), named("b")], max_new_tokens=4)
    assert seen[-4:] == [seed_of(group[0].group_id) for group in groups for _ in range(2)]
    assert seen[-4] != seen[-1]
    assert len({sample.prompt_ids for sample in groups[0]}) == 1


def test_shuffled_rewards_leave_no_turn_a_reward(tiny_policy):
    with running(tiny_policy, "TrustedParrot", sampler=LocalSampler(tiny_policy)) as dialogues:
        plain = draw(dialogues, [named("a"), named("b")], num_samples=4, max_new_tokens=5)
        shuffled = draw(
            dialogues,
            [named("a"), named("b")],
            num_samples=4,
            max_new_tokens=5,
            shuffle=torch.Generator().manual_seed(3),
        )
    before, after = ([sample for group in groups for sample in group] for groups in (plain, shuffled))
    assert [sample.response_ids for sample in before] == [sample.response_ids for sample in after]
    assert any(turn.reward is not None for sample in before for turn in sample.turns)
    assert all(turn.reward is None for sample in after for turn in sample.turns)
    assert {sample.metadata["rewards"] for sample in after} == {"shuffled"}


def test_an_environment_that_answers_nothing_changes_no_reward(tiny_policy):
    sampler, problems = LocalSampler(tiny_policy), [named("a"), named("b")]
    with running(tiny_policy, "Silent", sampler=sampler) as dialogues:
        talked = draw(dialogues, problems, num_samples=1, temperature=0.0, max_new_tokens=30, stop=())
        without = draw_plainly(tiny_policy, sampler, problems)
    for one, other in zip(talked, without, strict=True):
        assert one[0].response_ids == other[0].response_ids
        assert (one[0].reward, one[0].prompt_ids) == (other[0].reward, other[0].prompt_ids)
        assert one[0].log_mu == pytest.approx(other[0].log_mu, abs=2e-6)


def draw_plainly(policy, sampler, problems):
    worker = RolloutWorker(policy=policy, sampler=sampler, scorer=Counting(), problems=problems)
    return sample_and_score(
        worker,
        problems,
        RolloutContext(seed=7, step=3, policy_version=0, record_log_ref=False),
        num_samples=1,
        sampling=SamplingSettings(max_new_tokens=30, temperature=0.0),
        generator=torch.Generator().manual_seed(0),
    ).groups


@pytest.mark.parametrize("factory", ["Fragile", "TrustedFragile"])
def test_an_error_in_the_middle_closes_the_environments(tiny_policy, factory):
    script = Script(tiny_policy, {"a": ["hi", "ho", "bye"], "b": ["hi"]})
    pids = []
    with running(tiny_policy, factory, sampler=script) as dialogues:
        with pytest.raises(IndexError):  # b has no second line
            dialogues.hold([named("a"), named("b")], seeds=[0, 0], settings=SETTINGS, generator=torch.Generator())
        pids = [process._pid for process in dialogues.environments._processes]
        assert len(pids) == (2 if factory == "Fragile" else 0)
        wait_until(lambda: not any(process.numbers for process in dialogues.environments._processes))
        script.lines = {"c": ["bye"]}
        (held,) = dialogues.hold([named("c")], seeds=[0], settings=SETTINGS, generator=torch.Generator())
        assert held.ended == "over"
    assert not any(map(is_running, pids))


def test_ctrl_c_in_the_middle_leaves_no_process(tiny_policy):
    class Pressing(Script):
        def _say(self, name):
            if name == "b":
                signal.raise_signal(signal.SIGINT)
            return super()._say(name)

    script = Pressing(tiny_policy, {"a": ["hi"], "b": ["hi"]})
    with running(tiny_policy, "Fragile", sampler=script) as dialogues:
        with pytest.raises(KeyboardInterrupt):
            dialogues.hold([named("a"), named("b")], seeds=[0, 0], settings=SETTINGS, generator=torch.Generator())
        pids = [process._pid for process in dialogues.environments._processes]
    assert pids and not any(map(is_running, pids))


def test_an_error_of_whoever_reads_a_turn_is_raised_and_nobody_waits_for_ever(tiny_policy):
    class Broken(LineFormat):
        def parse(self, text, tools=()):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hold(tiny_policy, "Fragile", {"a": ["hi"], "b": ["hi"]}, call_format=Broken())


def test_environments_that_are_closed_meanwhile_end_what_waits_for_them(tiny_policy):
    script = Script(tiny_policy, {"a": ["CALL wait {}", "bye"]})

    class Slow(parrots.Fragile):
        def wait(self) -> str:
            """Wait."""
            time.sleep(60)

    with running(tiny_policy, Slow, sampler=script, call_seconds=100.0) as dialogues:
        timer = threading.Timer(0.5, dialogues.environments.close)
        timer.start()
        (held,) = dialogues.hold([named("a")], seeds=[0], settings=SETTINGS, generator=torch.Generator())
        timer.join()
    assert held.ended == "error" and "its environment is lost" in held.why_unscored


class Plain:
    """A sampler that cannot converse."""

    def __init__(self, policy):
        self._sampler = LocalSampler(policy)

    def sample(self, prompts, **arguments):
        return self._sampler.sample(prompts, **arguments)


def test_a_sampler_that_only_samples_holds_conversations_too(tiny_policy):
    with running(tiny_policy, "Parrot", sampler=Plain(tiny_policy)) as dialogues:
        groups = draw(dialogues, [named("a"), named("b")], num_samples=3, max_new_tokens=6)
    samples = [sample for group in groups for sample in group]
    assert all(len(sample.log_mu) == sample.num_drawn > 0 and sample.reward is not None for sample in samples)
    assert max(len(sample.turns) for sample in samples) > 1


# Templates that rewrite what was said before.

CALL = '<tool_call>\n{"name": "count", "arguments": {"up": 2}}\n</tool_call>'


@pytest.fixture(scope="module")
def thinking_path(tmp_path_factory) -> Path:
    """A model with the chat template of Qwen 3, which drops the thoughts before a user's last turn."""
    folder = tmp_path_factory.mktemp("thinking")
    text = (Path(__file__).parents[1] / "policies" / "templates" / "qwen3.jinja").read_text()
    tokenizer = chat_tokenizer(text, bos="<|im_start|>", eos="<|im_end|>")
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def thinking(thinking_path):
    return load_policy(str(thinking_path), dtype="float32", device="cpu")


def thought(words: str, then: str) -> str:
    return f"<think>\n{words}\n</think>\n\n{then}"


def hold_thinking(policy, lines, **settings):
    return hold(policy, "TrustedFragile", lines, call_format=get_format("hermes"), **settings)


def test_a_history_that_the_template_keeps_stays_one_sample(thinking):
    lines = [thought("Let me.", CALL), thought("More.", CALL), thought("I see.", "It is so, bye")]
    (held,) = hold_thinking(thinking, {"a": lines})
    assert check_history(thinking.tokenizer, tools=held.tools, end_ids=thinking.end_ids).kind == "rewrites"
    sample = sample_of(thinking, held)
    assert [turn.role for turn in sample.turns] == ["assistant", "tool"] * 2 + ["assistant"]
    ids = [*sample.prompt_ids, *sample.response_ids[: -sample.turns[-1].num_tokens]]
    *before, result = held.messages[:-1]
    assert history_is_kept(thinking.tokenizer, [*held.prompt, *before], [result], ids, held.tools)


def test_a_history_that_the_template_rewrites_is_split_there(thinking):
    lines = [thought("Let me.", CALL), thought("Said.", "It is two"), thought("Done.", "bye")]
    (held,) = hold_thinking(thinking, {"a": lines})
    first, second = held.samples(replace(template(thinking), reward=2.0), with_log_model=False)
    assert (first.episode, second.episode) == ("s", "s")
    assert (first.sample_id, second.sample_id) == ("s-t00", "s-t01")
    assert (first.reward, second.reward, first.metadata, second.metadata) == (
        2.0,
        2.0,
        {ENDED: "over"},
        {ENDED: "over"},
    )
    assert [turn.role for turn in first.turns] == ["assistant", "tool", "assistant", "user"]
    assert first.turns[-1].num_tokens == 0  # it is read in the next prompt
    assert [turn.text for turn in second.turns] == [lines[2]]
    # The prompt of the second is the template's own rendering, in which the thoughts are gone.
    assert second.prompt == (*held.prompt, *held.messages[:-1])
    expected = thinking.tokenizer.apply_chat_template(
        list(second.prompt), tools=list(held.tools), add_generation_prompt=True
    )
    assert list(second.prompt_ids) == list(expected["input_ids"] if hasattr(expected, "keys") else expected)
    assert "Said." not in thinking.decode(second.prompt_ids) and "It is two" in thinking.decode(second.prompt_ids)
    assert first.prompt == held.prompt and first.prompt_ids == held.prompt_ids
    assert held.response.num_tokens == first.num_drawn + second.num_drawn


def test_turns_are_counted_over_all_samples_of_a_conversation(thinking):
    lines = [thought("One.", "hi"), thought("Two.", "ho"), thought("Three.", "hey")]
    (held,) = hold_thinking(thinking, {"a": lines}, max_turns=3)
    assert (held.ended, len(held.segments)) == ("max_turns", 3)
    (short,) = hold_thinking(thinking, {"a": lines}, max_turns=2)
    assert (short.ended, len(short.segments)) == ("max_turns", 2)


def test_tokens_are_counted_over_all_samples_of_a_conversation(thinking):
    lines = [thought("One.", "hi"), thought("Two.", "ho"), thought("Three.", "bye")]
    (held,) = hold_thinking(thinking, {"a": lines})
    num_drawn = sum(turn.num_tokens for segment in held.segments[:2] for turn in segment.turns if turn.is_drawn)
    (short,) = hold_thinking(thinking, {"a": lines}, max_tokens=num_drawn)
    assert (short.ended, len(short.segments)) == ("max_tokens", 2)
    (longer,) = hold_thinking(thinking, {"a": lines}, max_tokens=num_drawn + 1)
    assert longer.ended == "over"


def test_a_lost_environment_in_a_split_conversation_costs_all_its_samples(thinking):
    (held,) = hold_thinking(thinking, {"a": [thought("One.", "hi"), thought("Two.", "raise")]})
    samples = held.samples(template(thinking), with_log_model=False)
    assert [sample.metadata[ENDED] for sample in samples] == ["error", "error"] and held.why_unscored


def split_group(thinking, *, rewards):
    """Conversations of three, one, … samples with these rewards, as one group."""
    group = []
    for number, reward in enumerate(rewards):
        lines = [thought("Hm.", "hi")] * (2 if number == 0 else 0) + [thought("Ha.", "bye")]
        (held,) = hold_thinking(thinking, {"a": lines})
        named_so = replace(template(thinking), sample_id=f"s{number}", reward=reward)
        group += held.samples(named_so, with_log_model=False)
    return group


def test_samples_of_a_conversation_are_compared_and_counted_as_one(thinking):
    group = split_group(thinking, rewards=[1.0, 0.0])
    assert [sample.episode for sample in group] == ["s0"] * 3 + [""]
    filtered = filter_group(group, AdvantageSettings(kind="leave-one-out"))
    assert len(filtered.used) == 4
    metrics = measure_rollouts([filtered])
    assert (metrics["num_samples"], metrics["reward_mean"], metrics["reward_std"]) == (2.0, 0.5, 0.5)
    assert metrics["length_max"] == sum(sample.num_drawn for sample in group[:3])
    assert metrics["length_mean"] == sum(sample.num_drawn for sample in group) / 2
    assert metrics["num_errors"] == metrics["truncated_fraction"] == 0.0


def test_a_conversation_alone_in_its_group_is_one_that_is_not_compared(thinking):
    group = split_group(thinking, rewards=[1.0, None])
    filtered = filter_group(group, AdvantageSettings(kind="leave-one-out"))
    assert not filtered.used
    metrics = measure_rollouts([filtered])
    assert (metrics["num_uncompared"], metrics["num_errors"], metrics["num_samples"]) == (1.0, 1.0, 2.0)


def test_refuse_refuses_before_the_first_step_with_an_example(thinking):
    told = EnvironmentSettings(
        factory="python:tests.training.parrots.TrustedFragile", rewritten_history="refuse", call_format="hermes"
    )
    task = ProblemSet(name="talks", train=(named("a"),), held_out=())
    environments = make_environments(told, thinking, task, tools=())
    with environments, pytest.raises(ConfigError, match=r"(?s)rewritten_history = 'refuse'.*thoughts"):
        make_dialogues(thinking, LocalSampler(thinking), environments)
    with make_environments(replace(told, rewritten_history="split"), thinking, task, tools=()) as environments:
        assert isinstance(make_dialogues(thinking, LocalSampler(thinking), environments), Dialogues)

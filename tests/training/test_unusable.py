"""What a policy cannot be asked is found before the first step, all of it, with its reason; logged samples are counted.

In the tiny model's chat template a character is a token, and a user's message of n of them is a prompt of n + 19:
`<|im_start|>user\\n` 6, `<|im_end|>\\n` 2, `<|im_start|>assistant\\n` 11. The model has 256 positions.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from klimb.errors import ConfigError
from klimb.experience import Sample
from klimb.tasks import Problem, ProblemSet, Score
from klimb.training import CloningSettings, OfflineSource, clone
from klimb.training.unusable import find_unusable, leave_out_unusable

NEW_TOKENS = 6
ROOM = 256 - 19 - NEW_TOKENS
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
)


def asking(name: str, content: str, *, system: str | None = None) -> Problem:
    lead = () if system is None else ({"role": "system", "content": system},)
    return Problem(problem_id=name, messages=(*lead, {"role": "user", "content": content}), answer="")


FITS, TOO_LONG = asking("fits", "a" * ROOM), asking("long", "a" * (ROOM + 1))


def task_of(train: tuple[Problem, ...], held_out: tuple[Problem, ...] = ()) -> ProblemSet:
    return ProblemSet(name="letters", train=train, held_out=held_out, score=lambda problem, answer: Score(reward=0.0))


def leave_out(policy, task, *, max_fraction=0.5, is_trained=True, is_evaluated=True):
    return leave_out_unusable(
        policy,
        task,
        max_new_tokens=NEW_TOKENS,
        max_fraction=max_fraction,
        is_trained=is_trained,
        is_evaluated=is_evaluated,
    )


def test_a_prompt_may_fill_the_positions_with_its_answer_and_not_one_token_more(tiny_policy):
    assert find_unusable(tiny_policy, [FITS, TOO_LONG], max_new_tokens=NEW_TOKENS) == {
        "long": "the prompt has 251 tokens, and with an answer of 6 it needs more than the model's 256 positions"
    }


def test_the_tools_that_a_prompt_tells_of_take_their_room(tiny_policy):
    named = "{% for t in tools or [] %}{{ t['function']['name'] }}{% endfor %}"
    tiny_policy.tokenizer.chat_template = named + tiny_policy.tokenizer.chat_template
    tool = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}
    problems = [asking("just", "a" * (ROOM - len("look"))), asking("long", "a" * (ROOM - len("look") + 1))]
    assert find_unusable(tiny_policy, problems, max_new_tokens=NEW_TOKENS) == {}
    assert list(find_unusable(tiny_policy, problems, max_new_tokens=NEW_TOKENS, tools=(tool,))) == ["long"]
    with pytest.raises(ConfigError, match="1 of 2 problems cannot be used: long: the prompt has 251 tokens"):
        leave_out_unusable(
            tiny_policy,
            task_of(tuple(problems)),
            max_new_tokens=NEW_TOKENS,
            max_fraction=0.0,
            is_trained=True,
            is_evaluated=True,
            tools=(tool,),
        )


def test_a_template_that_raises_is_told_in_its_own_words(tiny_policy):
    tiny_policy.tokenizer.chat_template = NO_SYSTEM
    reasons = find_unusable(tiny_policy, [FITS, asking("led", "a", system="Be brief.")], max_new_tokens=NEW_TOKENS)
    assert list(reasons) == ["led"]
    assert reasons["led"].endswith("refuses messages of system, user: System role not supported")


def test_a_template_with_a_fault_is_told_with_the_kind_of_fault(tiny_policy):
    tiny_policy.tokenizer.chat_template = "{{ messages[3]['content'] + 1 }}"
    with pytest.raises(ValueError, match="refuses messages of user: UndefinedError: "):
        tiny_policy.render([{"role": "user", "content": "a"}])


def test_a_template_that_makes_nothing_of_a_message_is_no_prompt(tiny_policy):
    tiny_policy.tokenizer.chat_template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    assert "makes no token" in find_unusable(tiny_policy, [asking("nothing", "")], max_new_tokens=1)["nothing"]


def test_a_token_that_the_model_does_not_know_is_found(tiny_policy):
    tiny_policy.tokenizer.add_tokens(["<new>"])
    reasons = find_unusable(tiny_policy, [asking("new", "a <new> one"), FITS], max_new_tokens=NEW_TOKENS)
    assert list(reasons) == ["new"]
    assert f"has the id {tiny_policy.num_vocab}, and the model knows 0 to {tiny_policy.num_vocab - 1}" in reasons["new"]


def test_what_cannot_be_asked_is_left_out_of_both_sides_and_counted(tiny_policy):
    other = replace(TOO_LONG, problem_id="held out and long")
    task, found = leave_out(tiny_policy, task_of((FITS, TOO_LONG), (other, asking("held out", "b"))))
    assert [problem.problem_id for problem in (*task.train, *task.held_out)] == ["fits", "held out"]
    assert [name for name, _ in found.reasons] == ["long", "held out and long"]
    assert "2 of 4 problems cannot be used: long: the prompt has 251" in found.in_words()
    assert found.in_words().endswith("; also held out and long")


def test_more_than_the_share_is_refused_and_as_much_is_not(tiny_policy):
    task = task_of((FITS, asking("b", "b"), asking("c", "c"), TOO_LONG))
    assert len(leave_out(tiny_policy, task, max_fraction=0.25)[0].train) == 3
    with pytest.raises(ConfigError, match=r"1 of 4 problems .*max_unusable_fraction = 0\.24 allows"):
        leave_out(tiny_policy, task, max_fraction=0.24)


def test_a_side_of_which_nothing_is_left_is_refused_whatever_share_is_allowed(tiny_policy):
    with pytest.raises(ConfigError, match="none of the 1 held-out problems is left"):
        leave_out(tiny_policy, task_of((FITS,), (TOO_LONG,)), max_fraction=1.0)


def test_a_side_that_is_not_asked_refuses_no_run(tiny_policy):
    task, found = leave_out(tiny_policy, task_of((FITS,), (TOO_LONG,)), max_fraction=0.0, is_evaluated=False)
    assert task.held_out == () and len(found.reasons) == 1
    task, found = leave_out(tiny_policy, task_of((TOO_LONG,), (FITS,)), max_fraction=0.0, is_trained=False)
    assert task.train == (TOO_LONG,) and found.reasons == ()


@pytest.mark.parametrize("side", ["problems", "held_out"])
def test_training_from_python_refuses_before_the_first_step(tiny_run, tiny_policy, tmp_path: Path, side: str):
    with pytest.raises(ValueError, match=r"1 of \d+ problems cannot be used: long: the prompt has 251 tokens"):
        tiny_run.run(tiny_policy, tmp_path / "run", tiny_run.BASE, **{side: (*tiny_run.PROBLEMS, TOO_LONG)})
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def logged(name: str, prompt: str, response: str, *, system: str | None = None) -> Sample:
    return Sample(
        sample_id=name,
        group_id=name,
        prompt=asking(name, prompt, system=system).messages,
        prompt_ids=(),
        response=response,
        response_ids=(),
        finish_reason="stop",
        reward=1.0,
        source="log",
    )


class Shelf:
    """Samples in memory, each a group."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = {sample.group_id: sample for sample in samples}

    def count(self, where: str = "") -> int:
        return len(self.samples)

    def group_ids(self, *, where: str = "") -> list[str]:
        return sorted(self.samples)

    def groups(self, group_ids, *, where: str = "") -> list[list[Sample]]:
        return [[self.samples[name]] for name in group_ids]


def test_a_logged_sample_longer_than_the_positions_is_refused_and_counted(tiny_policy, caplog):
    # 19 + 1 of the prompt, the answer and its end token.
    source = OfflineSource(
        Shelf(logged("just", "q", "a" * 235), logged("over", "q", "a" * 236)), tiny_policy, source="log"
    )
    taken = [sample.sample_id for group in source.take(2) for sample in group]
    assert (taken, source.num_refused) == (["just"], 1)
    assert "sample over: 257 tokens are more than the model's context of 256" in caplog.text


def test_a_logged_sample_that_the_template_refuses_is_refused_and_counted(tiny_policy, caplog):
    tiny_policy.tokenizer.chat_template = NO_SYSTEM
    shelf = Shelf(logged("led", "q", "a", system="Be brief."), logged("plain", "q", "a"))
    source = OfflineSource(shelf, tiny_policy, source="log")
    taken = [sample.sample_id for group in source.take(2) for sample in group]
    assert (taken, source.num_refused) == (["plain"], 1)
    assert "sample led: the chat template" in caplog.text and "System role not supported" in caplog.text


def test_a_pair_to_clone_that_is_too_long_is_refused_before_the_first_step(tiny_policy):
    before = [parameter.clone() for parameter in tiny_policy.model.parameters()]
    pairs = [(FITS.messages, "a" * (NEW_TOKENS - 1)), (FITS.messages, "a" * NEW_TOKENS)]
    with pytest.raises(ValueError, match="pair 1: the prompt has 250 tokens, and with an answer of 7 it needs"):
        clone(tiny_policy, pairs, settings=CloningSettings(batch_size=1))
    assert all(a.equal(b) for a, b in zip(before, tiny_policy.model.parameters(), strict=True))

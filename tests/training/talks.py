"""What the tests of conversations share: a sampler that says what it is told, and how they are held."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from tests.tasks.environments.scenes import LineFormat

from klimb.experience import Sample, SamplingSettings
from klimb.policies import Policy
from klimb.policies.stability import Stability, check_history
from klimb.samplers import Completion, Dialogue
from klimb.tasks import Problem
from klimb.tasks.environments import Environments, EnvironmentSettings
from klimb.tasks.tools import CallFormat
from klimb.training.dialogues import Conversation, Dialogues

ENVIRONMENTS = "python:tests.training.parrots"

SETTINGS = SamplingSettings(max_new_tokens=60)

ENDS = tuple("aeiou 13579tns")
"""The tiny model draws noise: with these as its ends a turn has few tokens."""

CUT = "…"
"""End of a turn in a script that is cut there."""


@dataclass
class Script:
    """A `ConversationSampler` that says, in the conversation whose prompt names it, one text after the other.

    A text that ends with `CUT` is cut there; others have the end token. All conversations have their turn, then all
    answers are waited for, the last one's first.

    Attributes:
        policy: encodes the texts.
        lines: name of a conversation -> its turns.
        prompts: that it was asked, in order.
        drawn: by name, the ids that were drawn.
        ids: that are drawn at a turn of a conversation instead of its text.
    """

    policy: Policy
    lines: dict[str, list[str]]
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    drawn: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    ids: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)

    def converse(self, prompts, *, settings, generator, answer, max_turns) -> Iterator[tuple[int, Dialogue]]:
        self.prompts += [tuple(prompt) for prompt in prompts]
        names = [self._name_of(prompt) for prompt in prompts]
        turns: list[list[Completion]] = [[] for _ in prompts]
        between: list[list[tuple[int, ...]]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        while going:
            asked: dict[int, Future] = {}
            for number in going:
                turns[number].append(self._say(names[number]))
                asked[number] = answer(number, turns[number][-1])
            answers = {number: asked[number].result(timeout=30) for number in reversed(going)}
            over = [number for number in going if answers[number] is None or len(turns[number]) == max_turns]
            going = [number for number in going if number not in over]
            for number in going:
                between[number].append(answers[number])
            yield from ((number, Dialogue(tuple(turns[number]), tuple(between[number]))) for number in over)

    def sample(self, prompts, *, num_samples, settings, generator):
        raise NotImplementedError("it converses")

    def _name_of(self, prompt: Sequence[int]) -> str:
        text = self.policy.decode(prompt)
        return next(name for name in self.lines if f"<{name}>" in text)

    def _say(self, name: str) -> Completion:
        said = self.drawn.setdefault(name, [])
        text = self.lines[name][len(said)]
        ids = tuple(self.policy.tokenizer(text.removesuffix(CUT), add_special_tokens=False)["input_ids"])
        is_cut = text.endswith(CUT)
        ids = self.ids.get((name, len(said)), ids if is_cut else (*ids, self.policy.end_ids[0]))
        said.append(ids)
        log_mu = tuple(-0.01 * place for place in range(len(ids)))
        return Completion(
            response_ids=ids, log_mu=log_mu, log_model=log_mu, finish_reason="length" if is_cut else "stop"
        )


def named(name: str, answer: str = "", words: str = "Go on.") -> Problem:
    return Problem(problem_id=name, messages=({"role": "user", "content": f"<{name}> {words}"},), answer=answer)


KNOWN: dict[str, Stability] = {}


def find_stability(policy: Policy, environments: Environments) -> Stability:
    """Return what the chat template does with histories; it takes a second to find out."""
    key = f"{policy.fingerprint} {policy.end_ids} {environments.tools}"
    if key not in KNOWN:
        KNOWN[key] = check_history(policy.tokenizer, tools=environments.tools, end_ids=policy.end_ids)
    return KNOWN[key]


@contextlib.contextmanager
def running(
    policy: Policy, factory: str | type, *, sampler=None, call_format: CallFormat | None = None, **settings
) -> Iterator[Dialogues]:
    """Yield the policy with running environments, made by a class of `parrots` or by the class itself."""
    told = EnvironmentSettings(factory=f"{ENVIRONMENTS}.{factory}" if isinstance(factory, str) else "", **settings)
    made = None if isinstance(factory, str) else factory
    with Environments(told, call_format=call_format or LineFormat(), factory=made) as environments:
        stability = find_stability(policy, environments)
        yield Dialogues(policy=policy, sampler=sampler, environments=environments, stability=stability)


def hold(
    policy: Policy,
    factory: str | type,
    lines: dict[str, list[str]],
    *,
    answers: Sequence[str] = (),
    sampling: SamplingSettings = SETTINGS,
    call_format: CallFormat | None = None,
    **settings,
) -> list[Conversation]:
    """Return the conversations of a script, one for each of its names."""
    script = Script(policy, lines)
    with running(policy, factory, sampler=script, call_format=call_format, **settings) as dialogues:
        problems = [named(name, answers[place] if answers else "") for place, name in enumerate(lines)]
        return dialogues.hold(
            problems, seeds=range(len(lines)), settings=sampling, generator=torch.Generator().manual_seed(0)
        )


def template(policy: Policy, name: str = "a") -> Sample:
    """Return a sample of which nothing is drawn yet."""
    return Sample(
        sample_id="s",
        group_id="g",
        prompt=tuple(named(name).messages),
        prompt_ids=(),
        response="",
        response_ids=(),
        finish_reason="length",
        sampling=SETTINGS,
        model=policy.name,
        tokenizer=policy.fingerprint,
    )

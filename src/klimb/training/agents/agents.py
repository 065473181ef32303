"""Rollouts of programs that bring their own loop: the programs of a batch call, and the policy answers.

The calls are answered by the sampler of the run, as conversations: each call is a turn, and what the program sends next
is what stands between it and the one after. So everything that holds for conversations holds here: what was drawn is
never encoded again, several samplers can do it, memory that runs out is handled, and turns that are drawn beside each
other do not depend on when a program sent its call. A service that draws requests as they come (`DecodingEngine`) would
make no program wait for another; but then the last bits of log-probabilities depend on who came first, and a resumed
run would not be the undisturbed one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from klimb.experience import SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Completion, Dialogue, Sampler
from klimb.tasks import Problem
from klimb.tasks.environments import EnvironmentSettings
from klimb.tasks.programs.program import words_of
from klimb.training.agents.calls import Endpoint
from klimb.training.agents.talk import ProgramTalk, TalkSettings
from klimb.training.dialogues import Conversation, draw_turns

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Agents:
    """The policy, and the programs that call it.

    Attributes:
        policy: renders and decodes; its model draws.
        sampler: draws the turns.
        endpoint: where the programs call; it answers already.
        settings: the command, and its limits.
        is_stable: whether the chat template keeps histories without tools whatever was drawn, see `check_history`;
            else each history is looked at.
    """

    policy: Policy
    sampler: Sampler
    endpoint: Endpoint
    settings: EnvironmentSettings
    is_stable: bool = False
    _said: set[str] = field(default_factory=set[str])

    def hold(
        self,
        problems: Sequence[Problem],
        *,
        seeds: Sequence[int],
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[Conversation]:
        """Return what came of a program on each problem; at most `max_processes` run at once.

        Args:
            problems: one a program.
            seeds: that the programs are told.
            settings: of the draws, whatever the programs ask for; the limits on tokens are those of a turn.
            generator: of the tokens.
        """
        of = TalkSettings(
            policy=self.policy,
            endpoint=self.endpoint,
            words=words_of(self.settings.command),
            environment=self.settings,
            sampling=settings,
            is_stable=self.is_stable,
        )
        talks = [ProgramTalk(of, problem, seed) for problem, seed in zip(problems, seeds, strict=True)]
        most = self.settings.max_processes
        for first in range(0, len(talks), most):
            self._talk(talks[first : first + most], settings, generator)
        self._say_overruled(talks)
        return [talk.finish() for talk in talks]

    def _talk(self, talks: Sequence[ProgramTalk], settings: SamplingSettings, generator: torch.Generator) -> None:
        """Let these programs run to their ends."""
        started: list[tuple[ProgramTalk, Future[tuple[int, ...] | None]]] = []
        try:
            for talk in talks:
                started.append((talk, talk.start()))
            for _, first_call in started:
                first_call.result()
            while waiting := [talk for talk in talks if talk.goes_on]:
                for place, dialogue in self._draw(waiting, settings, generator):
                    waiting[place].close_segment(dialogue)
        finally:
            for talk, _ in started:
                talk.close()

    def _draw(
        self, talks: Sequence[ProgramTalk], settings: SamplingSettings, generator: torch.Generator
    ) -> Iterator[tuple[int, Dialogue]]:
        for talk in talks:
            talk.begin_segment()

        def answer(number: int, completion: Completion) -> Future[tuple[int, ...] | None]:
            return talks[number].hear(completion)

        return draw_turns(
            self.policy,
            self.sampler,
            [talk.prompt_ids for talk in talks],
            settings=settings,
            generator=generator,
            answer=answer,
            max_turns=self.settings.max_turns,
        )

    def _say_overruled(self, talks: Sequence[ProgramTalk]) -> None:
        """Say once of each setting that programs ask for it and do not get it."""
        new = {name for talk in talks for name in talk.overruled} - self._said
        if not new:
            return
        self._said.update(new)
        num_asked = sum(bool(talk.overruled & new) for talk in talks)
        logger.warning(
            "%d of %d programs ask for %s of their own: turns are drawn as [sampling] says, and the samples have in "
            "their metadata what was asked for",
            num_asked,
            len(talks),
            ", ".join(sorted(new)),
        )

"""Responses of several turns: which turn each conversation is at, and drawing its turns in rounds.

A conversation is a prompt, then turns of the policy, each but the last followed by context ids that somebody answers.
A turn is drawn after the whole history: the prompt's ids, then all that was drawn and read, as it is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from klimb.experience.samples import SamplingSettings
from klimb.samplers.sampler import Answer, Completion, Dialogue, Sampler

MOST_SEEDS = 2**63 - 1
"""Seeds lie between 0 and this − 1: what torch draws as int64."""


def draw_seeds(count: int, generator: torch.Generator) -> list[int]:
    """Return so many random numbers, taken from the generator at once."""
    shape = (count,)
    return torch.randint(MOST_SEEDS, shape, generator=generator, device=generator.device).tolist()


def turn_quantiles(seed: int, turn: int, num_tokens: int) -> Tensor:
    """Return `[tokens]`, float64, uniform in [0, 1): the random numbers of one turn of a conversation.

    They depend on the conversation's seed, the number of its turn and of the token alone: Philox is a function of a
    counter and a key, which here is (seed, turn). A larger number of tokens begins with the same numbers.
    """
    philox = np.random.Philox(key=np.array([seed, turn], dtype=np.uint64))
    return torch.from_numpy(np.random.Generator(philox).random(num_tokens))


@dataclass
class _Conversation:
    """One conversation as it goes; `history` holds the prompt and all that followed."""

    history: list[int]
    turns: list[Completion] = field(default_factory=list)
    between: list[tuple[int, ...]] = field(default_factory=list)


class Conversations:
    """Who is to draw a turn, who waits for an answer, and who is over.

    Args:
        prompts: one for each conversation.
        answer: says what comes between turns; called once for each turn, where `end_turn` is.
        max_turns: of each conversation.
        max_new_tokens: of a turn.
        context: positions that history and turn may have together; None: any number.
        num_vocab: answers hold ids below this; None: any ids.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        answer: Answer,
        max_turns: int,
        max_new_tokens: int,
        context: int | None,
        num_vocab: int | None,
    ) -> None:
        if max_turns < 1:
            raise ValueError(f"max_turns must be >= 1, got {max_turns}")
        self._all = [_Conversation(list(prompt)) for prompt in prompts]
        self._answer, self._max_turns = answer, max_turns
        self._max_new_tokens, self._context, self._num_vocab = max_new_tokens, context, num_vocab
        self._at_turn = set(range(len(prompts)))
        self._waiting: dict[int, Future[tuple[int, ...] | None]] = {}
        self._over: list[int] = []

    def __len__(self) -> int:
        return len(self._all)

    @property
    def num_open(self) -> int:
        """Number of conversations that are not over."""
        return len(self._at_turn) + len(self._waiting)

    @property
    def at_turn(self) -> list[int]:
        """The conversations whose next turn is to be drawn or being drawn."""
        return sorted(self._at_turn)

    def history(self, number: int) -> list[int]:
        """Return the ids after which the conversation's next turn is drawn; not to be changed."""
        return self._all[number].history

    def turn(self, number: int) -> int:
        """Return the number of the conversation's next turn, from 0."""
        return len(self._all[number].turns)

    def room(self, number: int) -> int:
        """Return the number of tokens that the conversation's next turn may have."""
        if self._context is None:
            return self._max_new_tokens
        return min(self._max_new_tokens, self._context - len(self.history(number)))

    def by_history(self, numbers: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        """Return each different history with the conversations that have it, in their order."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number in numbers:
            groups[tuple(self.history(number))].append(number)
        return [(list(history), group) for history, group in groups.items()]

    def end_turn(self, number: int, completion: Completion) -> None:
        """Add the turn that was drawn, and ask for the answer."""
        conversation = self._all[number]
        conversation.turns.append(completion)
        conversation.history += completion.response_ids
        self._at_turn.remove(number)
        self._waiting[number] = self._answer(number, completion)

    def wait_for_answers(self) -> list[int]:
        """Wait until all are answered that wait for it; return those that go on. The others are over.

        All of them, so that which turns are drawn beside each other does not depend on when answers come. Errors of an
        answer are raised here.
        """
        waiting, self._waiting = self._waiting, {}
        answers = [(number, waiting[number].result()) for number in sorted(waiting)]
        return [number for number, context_ids in answers if self._goes_on(number, context_ids)]

    def take_over(self) -> list[tuple[int, Dialogue]]:
        """Return the conversations that have ended since this was last asked."""
        over, self._over = self._over, []
        return [(number, Dialogue(tuple(self._all[number].turns), tuple(self._all[number].between))) for number in over]

    def _goes_on(self, number: int, context_ids: Sequence[int] | None) -> bool:
        conversation = self._all[number]
        if context_ids is not None and len(conversation.turns) < self._max_turns:
            self._check(number, context_ids)
            if self._context is None or len(conversation.history) + len(context_ids) < self._context:
                conversation.between.append(tuple(context_ids))
                conversation.history += context_ids
                self._at_turn.add(number)
                return True
        self._over.append(number)
        return False

    def _check(self, number: int, context_ids: Sequence[int]) -> None:
        if context_ids and (min(context_ids) < 0 or (self._num_vocab and max(context_ids) >= self._num_vocab)):
            raise ValueError(
                f"the answer to turn {len(self._all[number].turns) - 1} of conversation {number} holds token ids from "
                f"{min(context_ids)} to {max(context_ids)}, the model's vocabulary is 0 to "
                f"{'any' if self._num_vocab is None else self._num_vocab - 1}; was it made with another tokenizer?"
            )


@runtime_checkable
class TurnRun(Protocol):
    """Draws turns of conversations until memory runs out or all are over."""

    @property
    def num_rows(self) -> int:
        """Number of conversations that are in memory at once."""
        ...

    @property
    def is_due(self) -> bool:
        """True when answers are waited for before anything else is drawn."""
        ...

    def advance(self, ready: Sequence[int]) -> list[tuple[int, Completion]]:
        """Draw on, also in these conversations, whose next turn begins; return the turns that have ended."""
        ...

    def release(self, numbers: Sequence[int]) -> None:
        """Forget conversations that are over."""
        ...


Complete = Callable[[Sequence[Sequence[int]], int, Tensor], list[Completion]]
"""Prompts, samples of each, quantiles `[tokens, samples]` -> the samples of the first prompt, then of the second, …"""


class Rounds:
    """A `TurnRun` that draws whole turns, of up to `max_batch` conversations at once, after their whole histories.

    Equal histories go through the model once, and histories of similar length together.
    """

    def __init__(self, conversations: Conversations, seeds: Sequence[int], complete: Complete, max_batch: int) -> None:
        self._conversations, self._seeds, self._complete = conversations, seeds, complete
        self._max_batch = max_batch
        self._groups: list[tuple[list[int], list[int]]] = []
        self._num_rows = 0

    @property
    def num_rows(self) -> int:
        """Conversations of the last round."""
        return self._num_rows

    @property
    def is_due(self) -> bool:
        """True when all that were ready have had their turn."""
        return not self._groups

    def advance(self, ready: Sequence[int]) -> list[tuple[int, Completion]]:
        """Draw one turn of some of those that are ready; return it of each."""
        self._groups = sorted([*self._groups, *self._conversations.by_history(ready)], key=lambda group: len(group[0]))
        alike = self._take()
        return [turn for groups in alike.values() for turn in self._turns(groups)]

    def release(self, numbers: Sequence[int]) -> None:
        """Nothing is kept between rounds."""

    def _take(self) -> dict[tuple[int, int], list[tuple[list[int], list[int]]]]:
        """Take the next groups; they come by size and by the room of their turn."""
        alike: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = defaultdict(list)
        self._num_rows = 0
        while self._groups and (not alike or self._num_rows + len(self._groups[0][1]) <= self._max_batch):
            history, numbers = self._groups.pop(0)
            self._num_rows += len(numbers)
            alike[len(numbers), self._conversations.room(numbers[0])].append((history, numbers))
        return alike

    def _turns(self, groups: Sequence[tuple[list[int], list[int]]]) -> list[tuple[int, Completion]]:
        numbers = [number for _, group in groups for number in group]
        room = self._conversations.room(numbers[0])
        quantiles = [turn_quantiles(self._seeds[i], self._conversations.turn(i), room) for i in numbers]
        completions = self._complete(
            [history for history, _ in groups], len(groups[0][1]), torch.stack(quantiles, dim=1)
        )
        return list(zip(numbers, completions, strict=True))


def converse_in_rounds(
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    *,
    settings: SamplingSettings,
    generator: torch.Generator,
    answer: Answer,
    max_turns: int,
    context: int | None = None,
) -> Iterator[tuple[int, Dialogue]]:
    """Let a sampler that can only `sample` draw conversations, as `ConversationSampler.converse` does.

    In a round every conversation that is not over has its next turn, with its history as its prompt; equal histories
    are asked for as samples of one prompt where all have as many. The next round begins when all are answered: so what
    is drawn depends on generator, prompts and answers, and not on when answers came, even in its last bit if the
    sampler's own does. The random numbers of a round come from a generator of its own, whose seed is drawn from
    `generator` at once for all rounds.

    Args:
        sampler: draws the turns.
        prompts: one for each conversation.
        settings: of the draws; `max_new_tokens` is a turn's.
        generator: of the random numbers.
        answer: says what comes between a turn and the next.
        max_turns: of each conversation.
        context: positions that the model has. Where history and `max_new_tokens` exceed it, the next turn gets the
            room that is left, and a conversation without room is over. None: the sampler is asked whatever the length.

    Raises:
        ValueError: `max_turns` < 1, or what the sampler refuses.
    """
    conversations = Conversations(
        prompts,
        answer=answer,
        max_turns=max_turns,
        max_new_tokens=settings.max_new_tokens,
        context=context,
        num_vocab=None,
    )
    return _rounds_of(sampler, conversations, settings, draw_seeds(max_turns, generator), generator.device)


def _rounds_of(
    sampler: Sampler, conversations: Conversations, settings: SamplingSettings, seeds: list[int], device: torch.device
) -> Iterator[tuple[int, Dialogue]]:
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(seed)
        at_turn = conversations.at_turn
        if not at_turn:
            return
        for room in sorted({conversations.room(number) for number in at_turn}):
            numbers = [number for number in at_turn if conversations.room(number) == room]
            of_room = replace(settings, max_new_tokens=room, min_new_tokens=min(settings.min_new_tokens, room))
            for number, completion in _sampled(sampler, conversations, numbers, of_room, generator):
                conversations.end_turn(number, completion)
        conversations.wait_for_answers()
        yield from conversations.take_over()


def _sampled(
    sampler: Sampler,
    conversations: Conversations,
    numbers: list[int],
    settings: SamplingSettings,
    generator: torch.Generator,
) -> list[tuple[int, Completion]]:
    """Return one turn of each of the conversations."""
    groups = conversations.by_history(numbers)
    if len({len(group) for _, group in groups}) > 1:
        groups = [(conversations.history(number), [number]) for number in numbers]
    num_samples = len(groups[0][1])
    drawn = sampler.sample(
        [history for history, _ in groups], num_samples=num_samples, settings=settings, generator=generator
    )
    return [
        turn
        for (_, group), completions in zip(groups, drawn, strict=True)
        for turn in zip(group, completions, strict=True)
    ]

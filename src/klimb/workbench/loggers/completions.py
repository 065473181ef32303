"""Answers of each step as a table for the loggers: what was asked and answered, what it earned and what it teaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klimb.experience import Message, Sample
from klimb.training import RunningRun
from klimb.ui.conversation import as_chat
from klimb.ui.escaping import cut, visible
from klimb.workbench.loggers.tracker import Cell, TakesTables

LONGEST_TEXT = 4_000
"""Characters of a prompt or an answer that are shown; `rollouts/` has all of them."""


COLUMNS = ("step", "prompt", "completion", "reward", "advantage")


@dataclass(frozen=True)
class CompletionsLogger:
    """A callback that hands the first answers of each step to what takes tables."""

    count: int
    tracker: TakesTables

    def on_step(self, run: RunningRun, metrics: Mapping[str, float], samples: Sequence[Sample]) -> None:
        """Write the table of the step; none where nothing was drawn."""
        if samples:
            columns, rows = completions_table(run.step, samples[: self.count], run.advantages)
            self.tracker.write_table(run.step, columns, rows)


def completions_table(
    step: int, samples: Sequence[Sample], advantages: Mapping[str, float]
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Return the columns and a row for each sample; characters that cannot be seen are shown by their code points.

    The completion of several turns has each behind its role, with what the policy drew told from what was put in.

    Args:
        step: of the run.
        samples: in the order of the rows.
        advantages: by sample_id, of those that are trained on.
    """
    parts = sorted({name for sample in samples for name in sample.reward_parts})
    columns = (*COLUMNS, *(visible(f"reward/{name}") for name in parts))
    rows = tuple(
        (
            step,
            _shown(_as_text(sample.prompt)),
            _shown(as_chat(sample)),
            sample.reward,
            advantages.get(sample.sample_id),
            *(sample.reward_parts.get(name) for name in parts),
        )
        for sample in samples
    )
    return columns, rows


def _as_text(messages: Sequence[Message]) -> str:
    """Return the only message, or all of them with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _shown(text: str) -> str:
    return visible(cut(text, LONGEST_TEXT))

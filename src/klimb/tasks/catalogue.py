"""Tasks by name, for configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from klimb.tasks.arithmetic import arithmetic
from klimb.tasks.file import from_file
from klimb.tasks.protocol import QUESTION_SLOT, ProblemSet, did_you_mean


def reasoning_gym(
    dataset: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    num_train: int = 500,
    num_held_out: int = 100,
    seed: int = 0,
    extract: str = "text",
    template: str = QUESTION_SLOT,
    system_prompt: str | None = None,
) -> ProblemSet:
    """Return problems of a reasoning-gym dataset, held-out ones from other seeds and with no question in common.

    The reward is the dataset's own score, from 0 to 1, which may give something for a partly right answer.

    Args:
        dataset: such as `chain_sum`.
        parameters: of that dataset, such as `{"min_terms": 2, "max_terms": 2}`.
        num_train: different training questions.
        num_held_out: different held-out questions.
        seed: of the generator.
        extract: what of the response is the answer: `text` (all), `last-line`, `last-number`, `answer-tag`
            (`<answer>...</answer>`).
        template: the user's message; `{question}` stands for the question.
        system_prompt: None leaves the system message to the model's chat template.

    Raises:
        ImportError: if the package is missing.
    """
    try:
        adapter = import_module("klimb.tasks.reasoning_gym")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "reasoning_gym":
            raise
        raise ImportError(
            "reasoning-gym tasks need a package that is not installed: pip install 'klimb[reasoning-gym]' "
            "(a C compiler must be there, for its dependency pycosat)"
        ) from error
    return adapter.reasoning_gym_problems(
        dataset,
        parameters=parameters or {},
        num_train=num_train,
        num_held_out=num_held_out,
        seed=seed,
        extract=extract,
        template=template,
        system_prompt=system_prompt,
    )


TASKS: dict[str, Callable[..., ProblemSet]] = {
    "arithmetic": arithmetic,
    "reasoning-gym": reasoning_gym,
    "file": from_file,
}


def make_task(kind: str, **parameters: Any) -> ProblemSet:
    """Return a task by kind and parameters.

    Args:
        kind: `arithmetic`, `reasoning-gym:DATASET` or `file:PATH`; what follows the colon may also be given as the
            parameter `dataset` or `path`.
        parameters: of the function that makes the task, by name.

    Raises:
        ValueError: naming an unknown kind or parameter, and the nearest known one.
    """
    name, _, subject = kind.partition(":")
    make = TASKS.get(name)
    if make is None:
        raise ValueError(f"tasks are {', '.join(TASKS)}; got {name!r}{did_you_mean(name, TASKS)}")
    signature = inspect.signature(make)
    for parameter in parameters:
        if parameter not in signature.parameters:
            raise ValueError(
                f"the parameters of task {name!r} are {', '.join(signature.parameters)}; got {parameter!r}"
                f"{did_you_mean(parameter, signature.parameters)}"
            )
    positional = [subject] if subject else []
    try:
        signature.bind(*positional, **parameters)
    except TypeError as error:
        raise ValueError(f"task {kind!r}: {error}; write it as {name}{SUBJECTS[name]}") from error
    return make(*positional, **parameters)


SUBJECTS = {"arithmetic": "", "reasoning-gym": ":DATASET", "file": ":PATH"}

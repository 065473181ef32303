"""The run that a verdict asks for, as a short TOML file: what the audit knows, and what differs from the defaults.

Tables as TOML text, with a remark behind a setting where there is something to say.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klimb.experience import NEEDS_GROUPS, Sample
from klimb.findings.audit import AuditReport
from klimb.findings.audit.uses import CLONE, RATINGS
from klimb.training import RECIPES
from klimb.training.settings import automatic_warmup
from klimb.workbench.config import RunConfig, SamplingConfig, table_of

Tables = dict[str, Mapping[str, Any]]
"""Section -> key -> value; the section "" has the keys of the file itself and comes first."""


Remarks = dict[str, str]
"""`section.key` -> the comment behind it, in one line."""


_BARE_KEY = re.compile(r"^[A-Za-z0-9_-]+$")


def toml_text(tables: Tables, remarks: Remarks) -> str:
    """Return the sections in their order; an empty one is left out."""
    parts: list[str] = []
    for section, table in tables.items():
        if not table:
            continue
        head = [f"[{section}]"] if section else []
        lines = [
            f"{toml_key(key)} = {toml_value(value)}{_remark(remarks.get(f'{section}.{key}', ''))}"
            for key, value in table.items()
        ]
        parts.append("\n".join([*head, *lines]))
    return "\n\n".join(parts) + "\n"


def toml_key(key: str) -> str:
    """Return the key itself, quoted where TOML wants it."""
    return key if _BARE_KEY.match(key) else _text(key)


def toml_value(value: Any) -> str:
    """Return a text, number, truth value, list or table (in one line).

    >>> toml_value({"a b": [1, True, "x"]})
    '{ "a b" = [1, true, "x"] }'

    Raises:
        ValueError: TOML has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return re.sub(r"e([+-])0(\d)$", r"e\1\2", repr(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{toml_key(key)} = {toml_value(item)}' for key, item in value.items())} }}"
    raise ValueError(f"TOML has no {type(value).__name__}, got {value!r}; expected text, number, list or table")


def _remark(text: str) -> str:
    return f"  # {text}" if text else ""


def _text(value: str) -> str:
    """Return a TOML basic string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


SINGLE = 1.5
"""Below this many responses a prompt on average, most groups have one."""


STAND_IN_MODEL = "smollm2-135m"
"""Stands in the run file where nothing names a model."""


ANSWERS_A_STEP = 64


NUM_PASSES = 3


MIN_STEPS, MAX_STEPS = 10, 100


LEARNING_RATE = 1e-5


CHARACTERS_A_TOKEN = 3
"""Of texts whose tokens nobody recorded; low, so that the longest answer fits."""


TASK_TO_FILL_IN = {"kind": "file", "path": "FILL-IN.jsonl"}
"""A run that draws answers stops at this file, which is not there, rather than take another task in silence."""


COMMENTED_TASK = """
# With a [task], its held-out problems are answered before and after the run; without one nothing is evaluated.
# [task]
# kind = "file"
# path = "questions.jsonl"
"""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What a run file needs to know of the audited data.

    Attributes:
        num_groups: groups that meet the audit's condition; an estimate where not all were read.
        group_size: mean number of samples a group.
        longest_tokens: that were drawn in one turn of a response; None where none has token ids.
        longest_characters: of a response.
    """

    num_groups: int
    group_size: float
    longest_tokens: int | None
    longest_characters: int


def logged(samples: Sequence[Sample], *, num_stored: int) -> Logged:
    """Sizes of the data from the samples that were read, of `num_stored` that there are."""
    num_read = len({sample.group_id for sample in samples})
    size = len(samples) / num_read
    return Logged(
        num_groups=max(1, round(num_stored / size)),
        group_size=size,
        longest_tokens=max(len(ids) for sample in samples for _, ids in sample.drawn_turns) or None,
        longest_characters=max(len(sample.response) for sample in samples),
    )


def run_file(
    report: AuditReport,
    *,
    store: str,
    data: Logged,
    model: str = "",
    where: str = "",
    run: RunConfig | None = None,
    temperature: float | None = None,
    held_out_fraction: float = 0.0,
) -> str:
    """TOML of a run that follows the verdict: from the log, or from fresh rollouts where more is to be collected.

    Args:
        report: the audit.
        store: folder or file of the audited data, as `klimb` finds it.
        data: its sizes.
        model: name or folder of the model to train; empty: that of the audited run, if there is one.
        where: the condition under which samples were audited.
        run: what the audited run was, if the data is a run's.
        temperature: of the policy to train, where it is not to be the one recorded with the samples.
        held_out_fraction: of the log's prompts, that say at the end whether the model is better. With it the run is
            from the log even where the verdict is to collect more.
    """
    verdict = report.verdict
    collects = verdict.kind == "collect-more" and not held_out_fraction
    recommended, *others = verdict.recipes if collects or verdict.kind != "collect-more" else _recipes_meanwhile(report)
    remarks: Remarks = {"objective.recipe": f"others that fit: {', '.join(others)}"} if others else {}
    tables: Tables = {"": {"seed": 0}, "model": _model(model, run, remarks)}
    if temperature is not None:
        tables["model"] = {**tables["model"], "temperature": temperature}
        remarks["model.temperature"] = "the audit took the policy at it; the samples do not settle it"
    tables |= _settings(run, data, remarks, collects=collects)
    tables["objective"] = {"recipe": recommended}
    if not collects and data.group_size < SINGLE:
        tables["advantages"] = _of_single_responses(recommended, remarks)
    tables["sources"] = {"rollout" if collects else "log": 1.0}
    if not collects:
        tables["log"] = {"path": store, **({"where": where} if where else {})}
        if held_out_fraction:
            tables["log"] |= {"held_out_fraction": held_out_fraction}
            remarks["log.held_out_fraction"] = "never trained on: they say at the end whether the model is better"
    num_prompts = int(tables["sampling"]["num_prompts"])
    tables["training"] = _training(run, data, num_prompts, remarks, collects=collects)
    head = f"# Verdict of the audit: {verdict.kind}, decided by: {verdict.decided_by}.\n\n"
    if run is not None:
        return head + toml_text(tables, remarks)
    if collects:
        return (
            f"# Fill in [task] below: fresh answers need to know to which problems.\n{head}{toml_text(tables, remarks)}"
        )
    return head + toml_text(tables, remarks) + COMMENTED_TASK


def _recipes_meanwhile(report: AuditReport) -> tuple[str, ...]:
    """Return what can be done with the log until there is more: learn from its ratings, else clone."""
    return next(use.recipes for name in (RATINGS, CLONE) for use in report.uses if use.name == name and use.recipes)


def _model(model: str, run: RunConfig | None, remarks: Remarks) -> dict[str, Any]:
    if model:
        return {"path": model}
    if run is None:
        remarks["model.path"] = "no --model was given: say which"
        return {"path": STAND_IN_MODEL}
    # Data may come from elsewhere: that it asks for code to be run is for the reader to allow.
    if run.model.trust_remote_code:
        remarks["model.path"] = "the audited run had trust_remote_code on; add it if you have read that code"
    return {"path": run.model.path, **_changed(run.model, but=("path", "trust_remote_code"))}


def _of_single_responses(recipe: str, remarks: Remarks) -> dict[str, Any]:
    """Return a baseline over the batch in place of one that compares the responses to one prompt."""
    kind = RECIPES[recipe].advantages.kind
    if kind not in NEEDS_GROUPS:
        return {}
    remarks["advantages.kind"] = "one response a prompt: there is no group to compare"
    return {"kind": "batch-soft-value" if kind == "group-soft-value" else "batch-mean", "group_filter": False}


def _automatic_steps(run: RunConfig) -> tuple[str, ...]:
    """Return what of its optimizer is what the length of a run gives: then a run of another length has another."""
    number = run.training.num_optimizer_steps
    automatic = {"warmup_steps": automatic_warmup(number), "schedule_steps": number}
    return tuple(name for name, steps in automatic.items() if getattr(run.optimizer, name) == steps)


def _settings(run: RunConfig | None, data: Logged, remarks: Remarks, *, collects: bool) -> Tables:
    """Task, scoring, sampling, optimizer and evaluation: those of the audited run, else what the data suggests."""
    if run is None:
        if collects:
            remarks["task.kind"] = "say which task: arithmetic, reasoning-gym or file, with its settings"
        remarks["optimizer.learning_rate"] = "the default, 1e-6, is for long runs"
        optimizer = {"learning_rate": LEARNING_RATE}
        task = TASK_TO_FILL_IN if collects else {}
        return {"task": task, "sampling": _sampling_of_data(data, remarks), "optimizer": optimizer}
    return {
        "task": {"kind": run.task.kind, **_changed(run.task, but=("kind",))},
        "scoring": _changed(run.scoring),
        "sampling": _sampling_of_run(run.sampling, data, remarks, collects=collects),
        "optimizer": _changed(run.optimizer, but=_automatic_steps(run)),
        "evaluation": _changed(run.evaluation),
    }


def _sampling_of_run(section: SamplingConfig, data: Logged, remarks: Remarks, *, collects: bool) -> dict[str, Any]:
    table = {"num_prompts": section.num_prompts, **_changed(section, but=("num_prompts",))}
    if not collects:
        table["num_prompts"] = min(section.num_prompts, data.num_groups)
        # A lag is one of rollouts: a run on a log takes none.
        table.pop("lag", None)
    if section.num_samples == 1:
        table["num_samples"] = SamplingConfig().num_samples
        remarks["sampling.num_samples"] = "was 1; answers to one prompt are compared with each other"
    return table


def _sampling_of_data(data: Logged, remarks: Remarks) -> dict[str, Any]:
    """Return groups a step, so that about 64 answers are trained on, and room for the longest logged answer."""
    num_prompts = min(data.num_groups, max(2, round(ANSWERS_A_STEP / data.group_size)))
    remarks["sampling.num_prompts"] = (
        f"groups a step; the data has {data.num_groups:,} of {data.group_size:.3g} answers"
    )
    if data.longest_tokens is None:
        longest = max(1, math.ceil(data.longest_characters / CHARACTERS_A_TOKEN))
        remarks["sampling.max_new_tokens"] = (
            f"longest logged answer: {data.longest_characters:,} characters, {CHARACTERS_A_TOKEN} a token"
        )
    else:
        longest = data.longest_tokens
        remarks["sampling.max_new_tokens"] = "the longest logged answer"
    return {"num_prompts": num_prompts, "max_new_tokens": longest}


def _training(
    run: RunConfig | None, data: Logged, num_prompts: int, remarks: Remarks, *, collects: bool
) -> dict[str, Any]:
    tokens = {} if run is None else {"micro_batch_tokens": run.training.micro_batch_tokens}
    if collects:
        return {"num_steps": MAX_STEPS if run is None else run.training.num_steps} | tokens
    wanted = math.ceil(NUM_PASSES * data.num_groups / num_prompts)
    bounds = f", at least {MIN_STEPS}" if wanted < MIN_STEPS else f", at most {MAX_STEPS}" if wanted > MAX_STEPS else ""
    remarks["training.num_steps"] = (
        f"{NUM_PASSES} passes: {NUM_PASSES} × {data.num_groups:,} groups / {num_prompts:,} a step = {wanted:,}{bounds}"
    )
    return {"num_steps": min(max(wanted, MIN_STEPS), MAX_STEPS)} | tokens


def _changed(section: Any, *, but: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return the settings of a section that are not the defaults."""
    return table_of(section, exclude_defaults=True, exclude_none=True, exclude=set(but))

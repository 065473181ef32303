"""What a run is: everything that its numbers depend on, as one flat table, and what of it a resume may change.

All of the resolved configuration, the loss, the scorer, the model, the problems and the logs are in it. What may change
stands in one list with its reason, so that a new setting is refused until somebody decides otherwise.
"""

import hashlib
import inspect
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import transformers
from torch import Tensor

from klimb import __version__
from klimb.policies import Policy
from klimb.policies.weights_hash import hash_weights
from klimb.tasks import Problem
from klimb.training.checkpoints import CheckpointError
from klimb.training.installation import own_installation
from klimb.training.run_folder import HISTORY_FILE, read_history, read_tables, replace_text
from klimb.training.run_format import OF_IDENTITY, RUN_FORMAT, check_format
from klimb.training.settings import LoopSettings
from klimb.training.sources.offline import OfflineSource

logger = logging.getLogger(__name__)


LENGTH = "how long the run goes on; no step that is done depends on it"
PORTIONS = "memory and speed: the same numbers but for rounding"
PLACE = "where and how results are kept or shown"
STEERING = "decided anew at each resume; the history of the run says from which step on"
CONTENT = "a place: what is read there is in the identity by content"

MAY_DIFFER: Mapping[str, str] = {
    "training.num_steps": LENGTH,
    "training.max_seconds": LENGTH,
    "training.max_generated_tokens": LENGTH,
    "training.max_training_seconds": LENGTH,
    "training.max_skipped_steps": LENGTH,
    "training.micro_batch_tokens": PORTIONS,
    "training.num_threads": PORTIONS,
    "sampling.max_batch": PORTIONS,
    "environment.max_processes": PORTIONS,
    "scoring.num_workers": PORTIONS,
    "scoring.max_concurrent": PORTIONS,
    "rewards.*.device": PORTIONS,
    "rewards.*.judge.cache": PLACE,
    "rewards.*.judge.key_env": PLACE,
    "rewards.*.judge.retries": "how long a busy endpoint is waited for, not what it says",
    "rewards.*.judge.wait_seconds": "how long a busy endpoint is waited for, not what it says",
    "rewards.*.judge.rubric_file": CONTENT,
    "scoring.max_error_fraction": LENGTH,
    "model.device": PORTIONS,
    "model.activation_checkpointing": PORTIONS,
    "model.chat_template": "the template itself is in policy.tokenizer, which may not change",
    "model.dtype": "what it comes to on this device is policy.compute_dtype, which may not change",
    "policy.trained_weights": "the checkpoint holds every weight that is trained, and puts it in their place",
    "optimizer.learning_rate": STEERING,
    "guard*": STEERING,
    "early_stopping*": LENGTH,
    "checkpoints.*": PLACE,
    "evaluation.every_*": "when it is evaluated, not how",
    "evaluation.at_ends": "when it is evaluated, not how",
    "run.*": PLACE,
    "task.path": CONTENT,
    "task.held_out_path": CONTENT,
    "task.few_shot_path": CONTENT,
    "task.max_unusable_fraction": "it refuses a run or not; what is left out does not depend on it",
    "log.path": CONTENT,
    "feedback.path": CONTENT,
}
"""Keys that a resumed run may change -> why. All else would make the numbers before and after two experiments."""


OF_ENVIRONMENT = "environment."
"""What the keys of `[environment]` begin with; none is there where answers are one turn."""


OWN_GLOBALS = "own_globals"
"""Before the keys of plain globals that functions of the user's own program read."""


IDENTITY_FILE = "identity.json"


ABSENT = "absent"


@runtime_checkable
class HasIdentity(Protocol):
    """A scorer that says itself what its rewards depend on."""

    def identity(self) -> Mapping[str, Any]:
        """Return tables of plain values, settings and functions."""
        ...


def run_identity(
    settings: Any,
    objective: Any,
    policy: Policy,
    problems: Sequence[Problem],
    *,
    held_out: Sequence[Problem] = (),
    logs: Sequence[OfflineSource] = (),
    scorer: object = None,
    described: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Return what the run is, as one flat table of JSON; keys are those of a run file where it has them.

    Args:
        settings: of the loop.
        objective: the loss.
        policy: as it is before the first step, and before anything is put into it from a checkpoint.
        problems: what is trained on.
        held_out: what is evaluated on.
        logs: the sources that the run does not draw itself.
        scorer: what scores; with a method `identity` it says itself what it is, else its class and source stand for it.
        described: the resolved configuration, where there is one; it has the last word on its keys.
    """
    loop = asdict(settings)
    loop["run"] = {"save_rollouts": loop.pop("save_rollouts")}
    seen = {
        **loop,
        "loss": describe_part(objective),
        "policy": _describe_policy(policy),
        "problems": _fingerprint(problems),
        "held_out": _fingerprint(held_out),
        "logs": {logged.source: logged.fingerprint() for logged in logs},
        **describe_part(scorer.identity() if isinstance(scorer, HasIdentity) else {"scorer": scorer}),
    }
    return json.loads(json.dumps(flatten(seen) | flatten(described or {}), default=str))


def run_key(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that differ between runs that are not the same, and survive what a resume may change."""
    lasting = {key: value for key, value in identity.items() if not is_free(key)}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:8]


def is_free(key: str, allowed: Iterable[str] = tuple(MAY_DIFFER)) -> bool:
    """Tell whether a resume may change this key; `*` in a pattern stands for any text."""
    return any(fnmatchcase(key, pattern) for pattern in allowed)


def changed_keys(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Return the keys that have two values, or are on one side alone, sorted.

    Globals that a function reads are compared where both sides know them: earlier runs did not look.
    """
    both = saved.keys() & present.keys()
    compared = (key for key in {*saved, *present} if key in both or not key.startswith(f"{OWN_GLOBALS}."))
    return sorted(key for key in compared if saved.get(key, ABSENT) != present.get(key, ABSENT))


def check_same_run(
    saved: Mapping[str, Any], present: Mapping[str, Any], *, allowed: Iterable[str] = tuple(MAY_DIFFER)
) -> None:
    """Return if the run is the same but for what may differ.

    Args:
        saved: the identity in the checkpoint.
        present: the identity of the run that wants to go on from it.
        allowed: keys that may differ; `*` stands for any text.

    Raises:
        CheckpointError: naming each other key with both values.
    """
    patterns = tuple(allowed)
    differing = [
        f"  {key}: {saved.get(key, ABSENT)!r} in the checkpoint, {present.get(key, ABSENT)!r} now"
        for key in changed_keys(saved, present)
        if not is_free(key, patterns)
    ]
    if differing:
        raise CheckpointError(
            "the run to resume had other settings:\n" + "\n".join(differing) + "\nResume with those it began with "
            "(only these may change: " + ", ".join(patterns) + "), or begin a new run"
        )


def settle_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write down what the run is if it begins in this folder; else return if the folder holds this very run.

    Raises:
        CheckpointError: it holds another one.
    """
    if not (folder / IDENTITY_FILE).exists():
        write_identity(folder, identity)
        return
    saved, written = read_identity(folder)
    if written == RUN_FORMAT:
        check_same_run(saved, identity)
        return
    check_same_run(with_new_settings(saved, identity), identity)
    logger.info("%s: brought up from format %d to %d", folder, written, RUN_FORMAT)
    write_identity(folder, with_new_settings(saved, identity), has_saved=(folder / "checkpoints").is_dir())


def write_identity(folder: Path, identity: Mapping[str, Any], *, has_saved: bool = False) -> None:
    """Write what the run is; `has_saved` says that it had a checkpoint, whatever has become of it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": RUN_FORMAT,
        "klimb": __version__,
        "run_key": run_key(identity),
        "has_saved": has_saved,
        "identity": dict(identity),
    }
    _write(folder, content)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    # Not every number of it is finite: a run without a limit has `inf` there.
    replace_text(folder / IDENTITY_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def note_saved(folder: Path) -> None:
    """Write down that the run has a checkpoint, so that a resume that finds none knows that it is gone."""
    content = read_tables(folder / IDENTITY_FILE)
    if content and not content.get("has_saved"):
        _write(folder, content | {"has_saved": True})


def read_identity(folder: Path) -> tuple[dict[str, Any], int]:
    """Return what the run in this folder was when it began, and the format that this is written in.

    Raises:
        CheckpointError: the file is missing, or is not what a run writes.
        ConfigError: it is of a version of klimb that this one cannot read.
    """
    path = folder / IDENTITY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, identity = content["format"], dict(content["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not say what the run is ({type(error).__name__}: {error}), so it cannot go on; put a copy "
            f"back, or begin the run anew with klimb train --resume {folder} --restart"
        ) from None
    check_format(path, found, made_by=content.get("klimb"))
    return identity, OF_IDENTITY[found] if found in OF_IDENTITY else int(found)


def with_new_settings(saved: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a run of an older klimb with the settings that there were not, each at its default.

    A default changes no number, so the run goes on as it was begun. One of the loop that has another value now stays
    absent, and is refused; those that the loop does not declare have no other value in the run's own configuration.
    """
    defaults = json.loads(json.dumps(flatten(asdict(LoopSettings())), default=str))
    new = {key: value for key, value in present.items() if key not in saved and defaults.get(key, value) == value}
    # Whether it talks to an environment at all is no default: a run without one began without one.
    is_alone = not any(key.startswith(OF_ENVIRONMENT) for key in saved)
    return {**saved, **{key: value for key, value in new.items() if not (is_alone and key.startswith(OF_ENVIRONMENT))}}


def keep_history(
    folder: Path, *, step: int, saved: Mapping[str, Mapping[str, Any]], present: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add what changed at this resume to the history, from which all that lies behind the step is removed.

    Args:
        folder: of the run.
        step: the last step that was made with the old values.
        saved: `identity` and `environment` of the checkpoint.
        present: the same of this process.
    """
    path = folder / HISTORY_FILE
    earlier = [line for line in read_history(folder) if line["step"] < step]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    changes = [
        {"step": step, "key": prefix + key, "old": old.get(key), "new": new.get(key), "time": now}
        for prefix, old, new in (
            ("", saved["identity"], present["identity"]),
            ("environment.", saved["environment"], present["environment"]),
        )
        for key in changed_keys(old, new)
    ]
    if not changes and len(earlier) == len(read_history(folder)):
        return
    replace_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [*earlier, *changes]))


def environment(policy: Policy) -> dict[str, Any]:
    """Return what equal numbers depend on besides the settings."""
    return {
        "klimb": __version__,
        "klimb_commit": own_installation()["commit"],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": policy.device.type,
        "num_threads": torch.get_num_threads(),
    }


def warn_of_changes(saved: Mapping[str, Mapping[str, Any]], present: Mapping[str, Mapping[str, Any]]) -> None:
    """Say in the log what is not as it was and is allowed to be so; arguments as for `keep_history`."""
    weights = "policy.trained_weights"
    if saved["identity"].get(weights) != present["identity"].get(weights):
        logger.warning(
            "the weights in %s are not those that the run began with; it goes on from those in its checkpoint",
            present["identity"].get("policy.name"),
        )
    for key, value in present["environment"].items():
        if saved["environment"].get(key) != value:
            logger.warning(
                "resumed with %s = %s, begun with %s: correct, but not bit for bit what one run would give",
                key,
                value,
                saved["environment"].get(key),
            )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by dots; what is None is absent."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def describe_part(part: Any) -> Any:
    """Return what stands for a part of the run: plain values as they are, settings by field, code by its source.

    Code of klimb and of installed packages is known by its name: it has a version.
    """
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, Mapping):
        return _in_short({str(key): describe_part(value) for key, value in part.items()})
    if isinstance(part, list | tuple):
        return _in_short([describe_part(value) for value in part])
    if isinstance(part, set | frozenset):
        return _in_short([describe_part(value) for value in sorted(part, key=repr)])
    if isinstance(part, partial):
        return {"function": describe_part(part.func), "given": describe_part([part.args, part.keywords])}
    if inspect.ismethod(part):
        return {"method": part.__name__, "of": describe_part(part.__self__)}
    if inspect.isroutine(part) or isinstance(part, type):
        return _name_and_source(part)
    if is_dataclass(part):
        return {"kind": _name_and_source(type(part))} | _fields_of(part)
    return _name_and_source(type(part))


def _in_short(described: Any) -> Any:
    """Return a hash in the place of what is long, such as the entries of a task."""
    if len(described) <= MOST_LISTED:
        return described
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    return f"{len(described)} entries, SHA-256 {digest}"


def _fields_of(part: Any) -> dict[str, Any]:
    """Return the fields of a frozen dataclass; those of another one are its state, and no settings."""
    if not part.__dataclass_params__.frozen:
        return {}
    return {each.name: describe_part(getattr(part, each.name)) for each in fields(part)}


def _name_and_source(code: Any) -> str:
    """Return the full name of klimb's and installed code, and of the user's own its name and the hash of its source.

    The module's name is no part of it: a program that is run has another one than the same file imported.
    """
    name = getattr(code, "__qualname__", type(code).__name__)
    source = _source_of_class(code) if isinstance(code, type) else _source_of(code)
    if not source:
        return f"{getattr(code, '__module__', '')}.{name}"
    return f"{name}, SHA-256 {hashlib.sha256(source.encode()).hexdigest()[:16]}"


def _source_of_class(code: type) -> str:
    """Return the source of all functions of the user's own that the class has, and its plain values."""
    parts: list[str] = []
    for owner in code.__mro__:
        functions = {name: _unwrap(value) for name, value in vars(owner).items()}
        sources = {name: _source_of(function) for name, function in functions.items() if inspect.isroutine(function)}
        if any(sources.values()):
            plain = {name: value for name, value in functions.items() if isinstance(value, int | float | str)}
            told = {name: value for name, value in plain.items() if not name.startswith("__")}
            parts.append(json.dumps([owner.__qualname__, sources, told], sort_keys=True))
    return "\n".join(parts)


def _unwrap(value: Any) -> Any:
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


def _source_of(code: Any) -> str:
    """Return the text of a function of the user's own; empty for klimb's, what is installed, and what has none."""
    if str(getattr(code, "__module__", "")).partition(".")[0] in ("klimb", "builtins"):
        return ""
    try:
        return "" if INSTALLED in str(inspect.getsourcefile(code)) else inspect.getsource(code)
    except (OSError, TypeError):
        return ""


MOST_LISTED = 100
"""Entries of a table or list that are told one by one."""


INSTALLED = "site-packages"
"""In the path of code that has a version."""


NOT_THE_POLICY = (
    "model",
    "tokenizer",
    "device",
    "packs_rows",
    "shares_prompts",
    "activation_checkpointing",
    "has_given_adapter",
    "notes",
    "pass_limit",
)
"""Fields of a policy that change no number but for rounding, or are described by their content."""


def _describe_policy(policy: Policy) -> dict[str, Any]:
    told = {each.name: getattr(policy, each.name) for each in fields(policy) if each.name not in NOT_THE_POLICY}
    told["compute_dtype"] = str(policy.compute_dtype).removeprefix("torch.")
    trained = policy.trainable()
    frozen = {name: weight for name, weight in _weights_of(policy).items() if name not in trained}
    adapters = getattr(policy.model, "peft_config", {})
    return {
        **told,
        "tokenizer": policy.fingerprint,
        "frozen_weights": hash_weights(frozen) if frozen else None,
        # A fresh adapter is drawn anew in each process; what counts of it is in the checkpoint.
        "trained_weights": hash_weights(trained) if trained and (policy.has_given_adapter or not adapters) else None,
        "adapters": {name: _describe_adapter(config) for name, config in adapters.items()},
    }


def _weights_of(policy: Policy) -> dict[str, Tensor]:
    """Return parameters and those buffers that are saved with a model."""
    kept = policy.model.state_dict().keys()
    buffers = {name: buffer for name, buffer in policy.model.named_buffers() if name in kept}
    return {**dict(policy.model.named_parameters()), **buffers}


def _describe_adapter(config: Any) -> dict[str, Any]:
    names = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out", "bias")
    targets = config.target_modules
    return {
        **{name: str(getattr(config, name, None)) for name in names},
        "targets": targets if isinstance(targets, str | None) else sorted(targets),
    }


def _fingerprint(problems: Sequence[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        line = [
            problem.problem_id,
            [dict(message) for message in problem.messages],
            problem.answer,
            sorted(problem.metadata.items()),
        ]
        digest.update(json.dumps(line).encode() + b"\n")
    return f"{len(problems)} problems, SHA-256 {digest.hexdigest()[:16]}"

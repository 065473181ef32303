"""What must stay the same when a run is resumed, and how a difference is told."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

import torch

from klimb import __version__
from klimb.policies import Policy
from klimb.tasks import Problem
from klimb.training.checkpoints import CheckpointError
from klimb.training.logged import LoggedGroups

MAY_DIFFER = (
    "settings.num_steps",
    "settings.max_seconds",
    "settings.max_generated_tokens",
    "settings.max_training_seconds",
    "settings.save_rollouts",
    "settings.optimizer.learning_rate",
    "settings.checkpoints.*",
    "settings.evaluation.*",
    "settings.guard*",
    "settings.update.max_skipped_steps",
    "settings.update.step.micro_batch_tokens",
)
"""What a resumed run may change. All else would make the numbers before and after two different experiments."""


def run_identity(
    settings: Any,
    objective: Any,
    policy: Policy,
    problems: Sequence[Problem],
    *,
    logs: Sequence[LoggedGroups] = (),
) -> dict[str, Any]:
    """What the run is, as flat JSON: settings, objective, model, data."""
    described = {
        "settings": asdict(settings),
        # A user's own function prints with its address in memory, which is another one in the next process.
        "objective": re.sub(r" at 0x[0-9a-f]+", "", repr(objective)),
        "model": policy.name,
        "problems": _fingerprint(problems),
        "logs": {logged.source: logged.fingerprint() for logged in logs},
    }
    return json.loads(json.dumps(flattened(described)))


def run_key(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that differ between runs that are not the same, and survive what a resume may change."""
    lasting = {
        key: value for key, value in identity.items() if not any(fnmatchcase(key, pattern) for pattern in MAY_DIFFER)
    }
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:8]


def check_same_run(
    saved: Mapping[str, Any], present: Mapping[str, Any], *, allowed: Iterable[str] = MAY_DIFFER
) -> None:
    """Returns if the run is the same but for what may differ.

    Args:
        saved: the identity in the checkpoint.
        present: the identity of the run that wants to go on from it.
        allowed: keys that may differ; `*` stands for any ending.

    Raises:
        CheckpointError: naming each other key with both values.
    """
    patterns = tuple(allowed)
    differing = [
        f"  {key}: {saved.get(key, 'absent')!r} in the checkpoint, {present.get(key, 'absent')!r} now"
        for key in sorted({*saved, *present})
        if saved.get(key, "absent") != present.get(key, "absent")
        and not any(fnmatchcase(key, pattern) for pattern in patterns)
    ]
    if differing:
        raise CheckpointError(
            "the run to resume had other settings:\n" + "\n".join(differing) + "\nResume with those it began with "
            "(only these may change: " + ", ".join(patterns) + "), or begin a new run"
        )


def environment(policy: Policy) -> dict[str, Any]:
    """What equal numbers depend on besides the settings."""
    return {
        "klimb": __version__,
        "torch": torch.__version__,
        "device": policy.device.type,
        "num_threads": torch.get_num_threads(),
    }


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _fingerprint(problems: Sequence[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        line = [problem.problem_id, [dict(message) for message in problem.messages], problem.answer]
        digest.update(json.dumps(line).encode() + b"\n")
    return f"{len(problems)} problems, SHA-256 {digest.hexdigest()[:16]}"

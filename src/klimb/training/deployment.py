"""Which policy a deployment answers with: one small file, replaced as a whole, that a server watches.

A deployment is a folder with `deployment.json` and the policies that were ever promoted there. Whoever promotes or goes
back writes the file; a server reads it anew when it changes. Requests in flight end on the policy they began with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from klimb.experience.atomic import replace_atomically

FILE = "deployment.json"


FORMAT = 1
"""Of the file."""


@dataclass(frozen=True, kw_only=True)
class ServedPolicy:
    """A policy that answers.

    Attributes:
        name: unique within the deployment, e.g. `policy-0003`; each sample that it draws has it as its `model`.
        model: what `load_policy` takes: a folder, relative to the deployment's own, or a model's name.
        policy_version: optimiser steps that its weights have seen since the deployment's first policy.
        since: seconds since the epoch when it began to answer.
        reason: one line for people: why it was promoted.
    """

    name: str
    model: str
    policy_version: int = 0
    since: float = 0.0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Who answers now.

    Attributes:
        current: the policy that answers.
        candidate: one that gets a share of the requests first; None for none.
        candidate_fraction: of the requests that the candidate gets, in [0, 1).
        earlier: the policies before, the latest last; `roll_back` goes to that.
    """

    current: ServedPolicy
    candidate: ServedPolicy | None = None
    candidate_fraction: float = 0.0
    earlier: tuple[ServedPolicy, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.candidate_fraction < 1:
            raise ValueError(f"candidate_fraction must be in [0, 1), got {self.candidate_fraction}")
        if (self.candidate is None) != (self.candidate_fraction == 0):
            raise ValueError(
                f"a candidate gets a share above 0, and without one the share is 0; got {self.candidate} with "
                f"{self.candidate_fraction}"
            )

    def promote(self, policy: ServedPolicy) -> "Deployment":
        """Return the deployment with this policy as the one that answers; today's becomes the latest of `earlier`."""
        return Deployment(current=policy, earlier=(*self.earlier, self.current))

    def roll_back(self) -> "Deployment":
        """Return the deployment with the policy before as the one that answers, and no candidate.

        Raises:
            ValueError: there is no policy before.
        """
        if not self.earlier:
            raise ValueError(f"{self.current.name} is the first policy of this deployment; there is none to go back to")
        return Deployment(current=self.earlier[-1], earlier=self.earlier[:-1])

    def try_out(self, policy: ServedPolicy, fraction: float) -> "Deployment":
        """Return the deployment with a candidate that gets this share of the requests."""
        return replace(self, candidate=policy, candidate_fraction=fraction)


def write_deployment(folder: Path, deployment: Deployment) -> None:
    """Write the deployment's file: whole, or after a failure what it held before."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, **asdict(deployment)}
    with replace_atomically(folder / FILE) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_deployment(folder: Path) -> Deployment:
    """Return the deployment in the folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its file is not one that this version can read.
    """
    path = folder / FILE
    text = path.read_text(encoding="utf-8")
    try:
        content: dict[str, Any] = json.loads(text)
        written = content.pop("format")
        if written != FORMAT:
            raise ValueError(f"format {written}, expected {FORMAT}")
        candidate = content["candidate"]
        return Deployment(
            current=_policy_of(content["current"]),
            candidate=None if candidate is None else _policy_of(candidate),
            candidate_fraction=content["candidate_fraction"],
            earlier=tuple(map(_policy_of, content["earlier"])),
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a deployment ({error}); write it anew with klimb learn, or restore it from a copy"
        ) from error


def _policy_of(row: Mapping[str, Any]) -> ServedPolicy:
    """Return the policy that a row of the file is.

    Raises:
        TypeError: a field is missing, not known, or no text or number where it should be.
    """
    policy = ServedPolicy(**row)
    are_texts = all(isinstance(text, str) for text in (policy.name, policy.model, policy.reason))
    are_numbers = isinstance(policy.policy_version, int) and isinstance(policy.since, int | float)
    if not (are_texts and are_numbers and policy.name):
        raise TypeError(f"no policy: {policy}")
    return policy

"""Change who answers: put a model into the deployment, promote it, try it out, take it back. Each a single moment."""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from klimb.errors import ConfigError
from klimb.experience.atomic import flush_to_disk
from klimb.training.deployment import FILE, Deployment, ServedPolicy, read_deployment, write_deployment
from klimb.workbench.learn.history import DecisionRow, append_decision, read_history
from klimb.workbench.learn.rounds import disk_is_safe
from klimb.workbench.model_path import model_path

NUMBERED = re.compile(r"^policy-(\d{4,})$")


@contextmanager
def changing(folder: Path) -> Generator[None]:
    """Keep others from changing the deployment's file for a moment: a learner and a rollback read and write it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".changing", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_deployment(folder: Path, model: str) -> Deployment:
    """Return the deployment; where there is none, begin one with this model.

    Raises:
        ConfigError: there is none, and no model was named.
        ValueError: there is no such model.
    """
    with changing(folder):
        if (folder / FILE).exists():
            return read_deployment(folder)
        if not model:
            raise ConfigError(f"{folder} holds no deployment: begin one with klimb serve MODEL --deployment {folder}")
        deployment = Deployment(
            current=ServedPolicy(name="policy-0001", model=named_model(model), reason="the first one")
        )
        write_deployment(folder, deployment)
        return deployment


def named_model(model: str) -> str:
    """Return how a deployment names a model or a run's folder: by its absolute path where it is one."""
    path = model_path(model)
    return str(Path(path).absolute()) if Path(path).exists() else path


def model_of(folder: Path, policy: ServedPolicy) -> str:
    """Return what `load_policy` takes."""
    inside = folder / policy.model
    return str(inside) if inside.exists() else policy.model


def next_name(folder: Path, deployment: Deployment) -> str:
    """Return `policy-000N` with the first number above all that there were, those that were rejected among them."""
    served = [deployment.current, *deployment.earlier]
    judged = (row.candidate for row in read_history(folder))
    names = [*(policy.name for policy in served), *(path.name for path in folder.glob("policy-*")), *judged]
    numbers = [int(found[1]) for name in names if (found := NUMBERED.fullmatch(name))]
    return f"policy-{max(numbers, default=len(served)) + 1:04d}"


def take_model(folder: Path, model: Path, name: str) -> None:
    """Copy a model into the deployment's folder under this name, whole or not at all; one that is there stays."""
    place = folder / name
    if place.exists():
        return
    aside = folder / f".{name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(model, aside)
    disk_is_safe(aside)
    os.replace(aside, place)
    flush_to_disk(folder)


def promote(folder: Path, policy: ServedPolicy, *, serving: str) -> bool:
    """Make the policy the one that answers; False if another one than `serving` answers by now."""
    with changing(folder):
        deployment = read_deployment(folder)
        if deployment.current.name == policy.name:
            return True  # before a crash
        if deployment.current.name != serving:
            return False
        write_deployment(folder, deployment.promote(policy))
        return True


def try_out(folder: Path, policy: ServedPolicy, fraction: float, *, serving: str) -> bool:
    """Give the policy a share of the requests; False if another one than `serving` answers by now."""
    with changing(folder):
        deployment = read_deployment(folder)
        if deployment.current.name != serving:
            return False
        if deployment.candidate is None or deployment.candidate.name != policy.name:
            write_deployment(folder, deployment.try_out(policy, fraction))
        return True


def end_trial(folder: Path, name: str) -> None:
    """Take its share of the requests from this candidate, if it has one."""
    with changing(folder):
        deployment = read_deployment(folder)
        if deployment.candidate is not None and deployment.candidate.name == name:
            write_deployment(folder, replace(deployment, candidate=None, candidate_fraction=0.0))


def roll_back(folder: Path) -> tuple[str, str]:
    """Go back to the policy before, and return the names of the one that answered and of the one that does now.

    Raises:
        ConfigError: there is no deployment, or no policy before.
    """
    if not (folder / FILE).exists():
        raise ConfigError(f"{folder} holds no deployment: there is no {folder / FILE}")
    with changing(folder):
        deployment = read_deployment(folder)
        try:
            before = deployment.roll_back()
        except ValueError as error:
            raise ConfigError(str(error)) from None
        write_deployment(folder, before)
    row = DecisionRow(
        time=time.time(),
        round=0,
        outcome="rolled back",
        candidate=deployment.current.name,
        serving=before.current.name,
        reason=f"a person went back from {deployment.current.name} to {before.current.name}",
    )
    append_decision(folder, row)
    return deployment.current.name, before.current.name

"""Checkpoints that are whole or absent: written aside, flushed, hashed, moved into place, verified when read.

A checkpoint is a folder of safetensors files, `numbers.json`, and, written last, `manifest.json` with the size and
SHA-256 of each. Nothing in it is unpickled.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from klimb import __version__
from klimb.experience import flush_to_disk, give_usual_mode
from klimb.training.run_format import RUN_FORMAT, check_format, migrate_numbers

logger = logging.getLogger(__name__)


_NAME = re.compile(r"step-(\d+)")


_ASIDE = ".tmp-"


_MANIFEST = "manifest.json"


_NUMBERS = "numbers.json"


class CheckpointError(ValueError):
    """A checkpoint is damaged, or does not belong to this run."""


@dataclass(frozen=True)
class CheckpointContent:
    """What a checkpoint holds.

    Attributes:
        tensors: file stem -> name -> tensor.
        numbers: whatever JSON can say; floats come back bit for bit.
        written_format: of the run's folder when it was written; the numbers are in today's.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    numbers: Mapping[str, Any]
    written_format: int = RUN_FORMAT


def save_checkpoint(
    folder: Path, step: int, content: CheckpointContent, *, keep: int, spare: Collection[int] = ()
) -> Path:
    """Write `step-XXXXXX` into the folder and then removes all but the newest `keep` and those of the steps to spare.

    Raises:
        OSError: it could not be written (disk full, read-only); those that were there are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = checkpoint_path(folder, step)
    aside = folder / f"{_ASIDE}{target.name}-{os.getpid()}"
    try:
        aside.mkdir()
        _write_files(aside, content)
        if target.exists():  # after a resume from an older one; what is in the way did not verify
            os.rename(target, folder / f"{_ASIDE}replaced-{target.name}-{os.getpid()}")
        os.rename(aside, target)
        flush_to_disk(folder)
    except SafetensorError as error:
        raise OSError(f"{target}: {error}") from error
    finally:
        remove_leftovers(folder)
    for old in _newest_first(folder)[keep:]:
        if step_of(old) not in spare:
            shutil.rmtree(old)
    return target


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What became of a run's checkpoints at its end.

    Attributes:
        newest: the one to go on from; None where there is none.
        num_removed: older ones that were removed.
        kept_bytes: of all that are left.
        removed_bytes: that the others took.
    """

    newest: Path | None
    num_removed: int
    kept_bytes: int
    removed_bytes: int


def prune_checkpoints(folder: Path, *, keep: int) -> Pruned:
    """Remove all but the newest `keep` and what the newest may go back to, and tell what that freed.

    What bears another name than a step's stays: the best one, damaged ones.
    """
    found = _newest_first(folder) if folder.is_dir() else []
    newest = next(iter(found), None)
    spare = _protected_by(newest) if newest is not None and len(found) > keep else set[int]()
    removed = [path for path in found[keep:] if step_of(path) not in spare]
    removed_bytes = sum(map(_size_of, removed))
    for path in removed:
        shutil.rmtree(path)
    kept = [path for path in folder.iterdir() if path.is_dir()] if found else []
    return Pruned(
        newest=newest,
        num_removed=len(removed),
        kept_bytes=sum(map(_size_of, kept)),
        removed_bytes=removed_bytes,
    )


def _protected_by(path: Path) -> set[int]:
    """Return the steps that the run may go back to from this checkpoint: its guard's good point, and its best one."""
    numbers = read_numbers(path)
    good = (numbers.get("quality") or {}).get("good")
    best = (numbers.get("watches") or {}).get("best") or {}
    return ({int(good["step"])} if good else set()) | ({int(best["best_step"])} if best.get("best_step") else set())


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def load_checkpoint(path: Path) -> CheckpointContent:
    """Return the content of a verified checkpoint, brought up to date if an older klimb wrote it.

    Raises:
        ConfigError: it was written in a format that this version does not read.
    """
    written = _read_written(path)
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return CheckpointContent(tensors, migrate_numbers(written["content"], written["format"]), written["format"])


def read_numbers(path: Path) -> dict[str, Any]:
    """Return a checkpoint's numbers alone, brought up to date.

    Raises:
        CheckpointError: the file is not as the manifest says.
        ConfigError: it was written in a format that this version does not read.
    """
    if damage := find_damage(path, only=_NUMBERS):
        raise CheckpointError(f"{path} is damaged: {damage}")
    written = _read_written(path)
    return migrate_numbers(written["content"], written["format"])


def _read_written(path: Path) -> dict[str, Any]:
    written = json.loads((path / _NUMBERS).read_text(encoding="utf-8"))
    check_format(path, written["format"], made_by=written.get("klimb"))
    return written


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint, whether or not its bytes verify."""
    return next(iter(_newest_first(folder)), None)


def newest_verified(folder: Path) -> Path | None:
    """Return the newest checkpoint whose every byte is as it was written; None when there is none.

    A damaged one is named in a warning and passed over.
    """
    for path in _newest_first(folder):
        damage = find_damage(path)
        if not damage:
            return path
        logger.warning("checkpoint %s is damaged (%s); the one before it is used", path, damage)
    return None


def find_damage(path: Path, *, only: str = "") -> str:
    """Return what is wrong with a checkpoint's files, or one of them; empty when all is as the manifest says."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            if only and name != only:
                continue
            size = (path / name).stat().st_size
            if size != expected["size"]:
                return f"{name} has {size} bytes instead of {expected['size']}"
            if _sha256(path / name) != expected["sha256"]:
                return f"the SHA-256 of {name} is not that of its manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def remove_leftovers(folder: Path) -> None:
    """Remove what an interrupted save has left aside."""
    for path in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(path, ignore_errors=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is, or would be."""
    return folder / f"step-{step:06d}"


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path}: not the name of a checkpoint; expected step-000012")
    return int(match[1])


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def _write_files(folder: Path, content: CheckpointContent) -> None:
    for stem, tensors in content.tensors.items():
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, folder / f"{stem}.safetensors")
    give_usual_mode(folder.glob("*.safetensors"))
    numbers = json.dumps({"format": RUN_FORMAT, "klimb": __version__, "content": content.numbers}, ensure_ascii=False)
    (folder / _NUMBERS).write_text(numbers, encoding="utf-8")
    files = {}
    for path in sorted(folder.iterdir()):
        flush_to_disk(path)
        files[path.name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    (folder / _MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    flush_to_disk(folder / _MANIFEST)
    flush_to_disk(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

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

from klimb.experience import flush_to_disk, give_usual_mode

logger = logging.getLogger(__name__)


FORMAT = 4


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
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    numbers: Mapping[str, Any]


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


def load_checkpoint(path: Path) -> CheckpointContent:
    """Return the content of a verified checkpoint.

    Raises:
        CheckpointError: it was written in a format that this version does not read.
    """
    numbers = json.loads((path / _NUMBERS).read_text(encoding="utf-8"))
    if numbers["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {numbers['format']}, and this klimb reads {FORMAT}; "
            "resume with the klimb that wrote it"
        )
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return CheckpointContent(tensors, numbers["content"])


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


def find_damage(path: Path) -> str:
    """Return what is wrong with a checkpoint's files, in words; empty when each is as its manifest says."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
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
    numbers = json.dumps({"format": FORMAT, "content": content.numbers}, ensure_ascii=False)
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

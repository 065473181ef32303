"""What a resume does about a damaged folder before anything is added to it: mend it, or refuse; nothing is wiped.

What the checkpoint can make again is made again. What it cannot is named in one warning, counted, and kept beside as
`NAME.damaged-N`. Whoever calls holds the folder's lock: what a living process writes looks like damage.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from klimb.experience import SegmentError
from klimb.experience.migrations import migrate_folder
from klimb.experience.segments import check_samples_schema
from klimb.findings.evaluations import evaluation_of
from klimb.training.checkpoints import CheckpointError, newest_checkpoint, read_numbers
from klimb.training.identity import IDENTITY_FILE, write_identity
from klimb.training.json_lines import Line, SoundLines, describe_faults, read_sound_lines
from klimb.training.run_folder import (
    HISTORY_FILE,
    RunFolder,
    free_name,
    parse_lines,
    put_aside,
    read_object,
    read_tables,
    replace_text,
)
from klimb.training.run_format import RUN_FORMAT, check_format

logger = logging.getLogger(__name__)


ROLLOUTS = "rollouts"


SKIPPED = "skipped"


SIDE_FILES = ("summary.json", "prompts.json", "guard.json", "loggers.json")
"""Files of one JSON object that a run writes again, or can do without."""


_STEP_FILE = re.compile(r"step-(\d+)\.parquet")


_TEMPORARY = re.compile(r"\..+\.(tmp|mode)(-\d+)?")
"""Names that klimb gives to a file which is not whole yet; checkpoints have their own."""


def mend_folder(folder: Path) -> None:
    """Remove what dead processes left half written, and put aside what cannot be read.

    Raises:
        CheckpointError: what the run is cannot be read, and no checkpoint knows it; or a newer klimb made it.
        OSError: the folder cannot be written.
    """
    _remove_temporary_files(folder)
    for name in ("metrics.jsonl", "evaluations.jsonl", HISTORY_FILE):
        _mend_last_line(folder / name)
    _mend_lines(folder / "evaluations.jsonl", evaluation_of, "evaluations")
    _mend_lines(folder / HISTORY_FILE, lambda line: (line["step"], line["key"]), "changes of settings")
    for name in SIDE_FILES:
        _mend_side_file(folder / name)
    _mend_identity(folder)


def mend_metrics(path: Path, *, step: int, keep_bytes: int) -> int:
    """Return how many bytes of metrics.jsonl belong to the steps up to the checkpoint's, once all of them can be read.

    A line that is lost is not made again: the checkpoint's step has seen it. It is counted in a warning, and a file
    with garbled lines is kept beside.

    Args:
        path: the file; nothing is done if it is not there and nothing is expected.
        step: of the checkpoint; 0 where there is none.
        keep_bytes: what the checkpoint says.
    """
    if step == 0:
        return 0
    found = read_sound_lines(path) if path.is_file() else SoundLines(lines=[], numbers=[], faults={})
    if _ends_with_step(path, keep_bytes, step) and not _faults_before(path, keep_bytes, found):
        return keep_bytes
    kept = [line for line in found.lines if _step_of_line(line) in range(1, step + 1)]
    lost = sorted(set(range(1, step + 1)) - {_step_of_line(line) for line in kept})
    beside = f"; the damaged file is kept as {_keep_beside(path).name}" if found.faults else ""
    size = _write_lines(path, kept)
    if lost or found.faults:
        num_lines = len(found.lines) + len(found.faults)
        garbled = f", {describe_faults(found.faults, num_lines=num_lines)}" if found.faults else ""
        logger.warning(
            "%s: %d of the %d steps that the checkpoint has seen are lost from it%s%s%s. They cannot be made again; "
            "the parameters are whole, and the run goes on",
            path,
            len(lost),
            step,
            f" ({_in_ranges(lost)})" if lost else "",
            garbled,
            beside,
        )
    return size


def remove_behind(folder: Path, step: int) -> None:
    """Remove the rollouts of steps after the checkpoint, which are made again, and put aside those that are damaged."""
    damaged: list[str] = []
    for name in (ROLLOUTS, SKIPPED):
        for path in _step_files(folder / name):
            if _number(path) > step:
                path.unlink()
            elif why := _damage_of(path, is_recent=_number(path) > step - NUM_RECENT):
                damaged.append(f"{put_aside(path).relative_to(folder)} ({why})")
    if damaged:
        logger.warning(
            "%s: %d files of rollouts are damaged and put aside as %s; the checkpoint does not need them, and they "
            "cannot be made again",
            folder,
            len(damaged),
            ", ".join(damaged[:3]) + (", …" if len(damaged) > 3 else ""),
        )


def check_may_begin_again(folder: Path, *, every_steps: int) -> None:
    """Return if a run without a checkpoint loses nothing by beginning at step 1: none can have been saved yet.

    Raises:
        CheckpointError: there were checkpoints, or must have been, and they are gone.
    """
    last = _last_step(folder)
    if not last:
        return
    told = read_tables(folder / IDENTITY_FILE)
    # A run of an older klimb did not write down that it had saved.
    is_older = told.get("format") != RUN_FORMAT
    was_saved = bool(told.get("has_saved")) or (is_older and (last >= every_steps or (folder / "checkpoints").exists()))
    if was_saved or RunFolder(folder).summary.exists():
        raise CheckpointError(
            f"{folder} holds {last} steps and no checkpoint to go on from; put its checkpoints back, or begin the run "
            f"anew with klimb train --resume {folder} --restart, which keeps what is there under another name"
        )
    logger.warning(
        "%s was stopped after step %d, before its first checkpoint: these steps are done again", folder, last
    )


def tell_lost_evaluations(folder: Path, *, step: int) -> None:
    """Say which evaluations the metrics know of and their file does not: the checkpoint cannot make them again."""
    rows = read_sound_lines(folder / "metrics.jsonl").lines if (folder / "metrics.jsonl").is_file() else []
    made = {int(row["step"]) for row in rows if row.get("evaluation_mean") is not None and row["step"] <= step}
    kept = read_sound_lines(folder / "evaluations.jsonl").lines if (folder / "evaluations.jsonl").is_file() else []
    if lost := sorted(made - {int(record["step"]) for record in kept if record.get("when") == "during"}):
        logger.warning(
            "%s lacks the evaluations after %s: they are lost, the run is not",
            folder / "evaluations.jsonl",
            f"step {', '.join(map(str, lost))}",
        )


def _remove_temporary_files(folder: Path) -> None:
    for place in (folder, folder / ROLLOUTS, folder / SKIPPED, folder / "model", folder / "adapter"):
        if not place.is_dir():
            continue
        for path in [path for path in place.iterdir() if _TEMPORARY.fullmatch(path.name)]:
            logger.info("%s: removed, a stopped process left it half written", path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mend_last_line(path: Path) -> None:
    """Give a last line that is whole its end, and cut off one that is not."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        tail = _behind_last_end(file, size)
        if not tail:
            return
        if _is_object(tail):
            file.write(b"\n")
            return
        file.truncate(size - len(tail))
    logger.warning("%s: its last line was cut short while it was written; these %d bytes are removed", path, len(tail))


def _behind_last_end(file: Any, size: int) -> bytes:
    tail, position = b"", size
    while position and b"\n" not in tail:
        start = max(0, position - _BLOCK)
        file.seek(start)
        tail = file.read(position - start) + tail
        position = start
    file.seek(0, os.SEEK_END)
    return tail[tail.rfind(b"\n") + 1 :]


_BLOCK = 1_000_000


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _mend_lines(path: Path, parse: Callable[[Line], object], what: str) -> None:
    """Leave out the lines that cannot be read; the file as it was is kept beside."""
    if not path.is_file():
        return
    kept, told = parse_lines(path, lambda line: (parse(line), line)[1])
    if not told:
        return
    beside = _keep_beside(path)
    _write_lines(path, kept)
    logger.warning(
        "%s: %s; these %s are lost and the others kept. The damaged file is kept as %s", path, told, what, beside.name
    )


def _mend_side_file(path: Path) -> None:
    if not path.is_file():
        return
    content, why = read_object(path)
    if not why and path.name == "summary.json" and not _says_how_long(content):
        why = "it does not say how long the run took"
    if why:
        logger.warning("%s: %s; it is put aside as %s and written anew", path, why, put_aside(path).name)


def _says_how_long(summary: Mapping[str, Any]) -> bool:
    seconds = summary.get("seconds")
    return isinstance(seconds, Mapping) and isinstance(seconds.get("total"), int | float)


def _mend_identity(folder: Path) -> None:
    """Make what the run is again from its newest checkpoint if its own file cannot be read.

    Raises:
        CheckpointError: there is no checkpoint either.
    """
    path = folder / IDENTITY_FILE
    if not path.is_file():
        return
    content, why = read_object(path)
    if not why and not isinstance(content.get("identity"), dict):
        why = "it holds no identity"
    if not why:
        check_format(path, content.get("format"), made_by=content.get("klimb"))
        if content.get("format") != RUN_FORMAT:
            migrate_folder(folder / ROLLOUTS)
        return
    checkpoint = newest_checkpoint(folder / "checkpoints")
    if checkpoint is None and _last_step(folder):
        raise CheckpointError(
            f"{path} cannot be read ({why}) and there is no checkpoint that knows what the run is; put a copy of it "
            f"back, or begin the run anew with klimb train --resume {folder} --restart"
        )
    identity = None if checkpoint is None else read_numbers(checkpoint)["identity"]
    aside = put_aside(path)
    if identity is not None:
        write_identity(folder, identity, has_saved=True)
    logger.warning("%s: %s; it is made again, and the damaged file kept as %s", path, why, aside.name)


def _last_step(folder: Path) -> int:
    """Return the last step that anything in the folder was recorded of; 0 where nothing was."""
    metrics = folder / "metrics.jsonl"
    lines = read_sound_lines(metrics) if metrics.is_file() else SoundLines(lines=[], numbers=[], faults={})
    steps = [len(lines.lines) + len(lines.faults), *(_step_of_line(line) for line in lines.lines)]
    return max(steps + [_number(path) for path in _step_files(folder / ROLLOUTS)])


def _step_of_line(line: Line) -> int:
    step = line.get("step")
    return int(step) if isinstance(step, int | float) and step == step and abs(step) < 1e15 else 0


def _ends_with_step(path: Path, num_bytes: int, step: int) -> bool:
    """Whether the file's first bytes are whole lines, the last of them that of the step."""
    if not path.is_file() or path.stat().st_size < num_bytes:
        return False
    with path.open("rb") as file:
        tail = _behind_last_end(file, max(0, num_bytes - 1))
        file.seek(max(0, num_bytes - 1))
        is_whole = file.read(1) == b"\n"
    return is_whole and _is_object(tail) and _step_of_line(json.loads(tail)) == step


def _faults_before(path: Path, num_bytes: int, found: SoundLines) -> bool:
    if not found.faults:
        return False
    with path.open("rb") as file:
        return min(found.faults) <= file.read(num_bytes).count(b"\n")


def _write_lines(path: Path, lines: Sequence[Line]) -> int:
    """Replace the file by these lines, and return its size."""
    replace_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path.stat().st_size


def _keep_beside(path: Path) -> Path:
    return Path(shutil.copy2(path, free_name(path)))


def _in_ranges(numbers: Sequence[int]) -> str:
    """Say ascending numbers in short.

    >>> _in_ranges([1, 2, 3, 7])
    '1–3, 7'
    """
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    told = [f"{low}" if low == high else f"{low}–{high}" for low, high in spans]
    return ", ".join(told[:5]) + (", …" if len(told) > 5 else "")


def _step_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _STEP_FILE.fullmatch(path.name))


def _number(path: Path) -> int:
    match = _STEP_FILE.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _damage_of(path: Path, *, is_recent: bool) -> str:
    """Return what is wrong with a segment; of an older one, only whether it lacks one of its ends.

    What a crash cut short, or left empty, is recent. A flipped bit in an older segment is found when it is read.
    """
    if not is_recent and _has_both_ends(path):
        return ""
    try:
        check_samples_schema(path)
    except SegmentError as error:
        return str(error.__cause__ or error).strip().splitlines()[0]
    return ""


NUM_RECENT = 50
"""Steps before the checkpoint whose rollouts are opened at a resume."""


MAGIC = b"PAR1"
"""At both ends of a Parquet file."""


def _has_both_ends(path: Path) -> bool:
    with path.open("rb") as file:
        begin, size = file.read(len(MAGIC)), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(MAGIC)))
        return size > 3 * len(MAGIC) and begin == file.read() == MAGIC

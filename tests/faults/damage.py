"""Files of a run's folder, damaged: cut, a bit flipped, emptied, deleted."""

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path


def cut(path: Path, generator: random.Random) -> str:
    """Leave only the first bytes."""
    size = path.stat().st_size
    kept = generator.randrange(size) if size else 0
    with path.open("r+b") as file:
        file.truncate(kept)
    return f"cut at byte {kept} of {size}"


def flip(path: Path, generator: random.Random) -> str:
    """Turn one bit over."""
    data = bytearray(path.read_bytes())
    if not data:
        return "empty: no bit to flip"
    place, bit = generator.randrange(len(data)), generator.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} flipped"


def empty(path: Path, generator: random.Random) -> str:
    """Leave a file of no bytes, as a file system may after a loss of power."""
    path.write_bytes(b"")
    return "emptied"


def delete(path: Path, generator: random.Random) -> str:
    """Remove the file."""
    path.unlink()
    return "deleted"


def cut_last_line(path: Path, generator: random.Random) -> str:
    """Cut the last line somewhere in its middle."""
    data = path.read_bytes()
    start = data[:-1].rfind(b"\n") + 1
    kept = generator.randrange(start + 1, len(data))
    path.write_bytes(data[:kept])
    return f"last line cut after {kept - start} of {len(data) - start} bytes"


DAMAGES: Mapping[str, Callable[[Path, random.Random], str]] = {
    "cut": cut,
    "flip": flip,
    "empty": empty,
    "delete": delete,
    "cut last line": cut_last_line,
}


def hurt(run: Path, pattern: str, damage: str, generator: random.Random) -> str:
    """Damage one file that the pattern finds in the run's folder, or delete what it finds with `delete all`; say what.

    Raises:
        FileNotFoundError: there is nothing to damage.
    """
    found = sorted(path for path in run.glob(pattern) if damage == "delete all" or path.is_file())
    if not found:
        raise FileNotFoundError(f"{run} has no {pattern} to damage")
    if damage == "delete all":
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return f"{pattern} deleted"
    if damage.startswith("each "):
        return ", ".join(_hurt_one(run, path, damage.removeprefix("each "), generator) for path in found)
    return _hurt_one(run, generator.choice(found), damage, generator)


def _hurt_one(run: Path, path: Path, damage: str, generator: random.Random) -> str:
    return f"{path.relative_to(run)} {DAMAGES[damage](path, generator)}"

"""The program of a scoring process: problems and responses in, scores out.

It is started as a file and imports the standard library alone, so it is up in milliseconds; what the task needs arrives
pickled. Replies are JSON: nothing that a reward function leaves behind is ever unpickled by the training process.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

HEADER = struct.Struct(">Q")


LONGEST_REASON = 300


LONGEST_TRACEBACK = 20_000


PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""


def pack(payload: bytes) -> bytes:
    """Return the payload with its length in front."""
    return HEADER.pack(len(payload)) + payload


def read_payload(stream: BinaryIO) -> bytes | None:
    """Return the next payload, or None at the end of the stream."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    payload = stream.read(size)
    return payload if len(payload) == size else None


def claim_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the streams to and from the training process; stdin, stdout and stderr become empty.

    What reward code prints goes nowhere, and its `input()` cannot eat a problem.
    """
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def end_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Asks Linux to kill this process with its parent, even if C code hangs; elsewhere it ends when it next reads."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)


def limit_memory(num_bytes: int | None) -> None:
    """Caps the address space: a huge allocation is then a MemoryError here, not the end of the training process."""
    if num_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(start: dict[str, Any]) -> Any:
    """Return the score function, ready to be called."""
    sys.path[:] = start["import_path"]
    limit_memory(start["memory_limit_bytes"])
    score = pickle.loads(start["score"])
    sys.path.insert(0, os.getcwd())  # after klimb's own imports, which a file lying around must not shadow
    prepare = getattr(score, "prepare", None)
    if prepare is not None:
        prepare()
    return score


def reply_to(score: Any, request: bytes) -> bytes:
    """Return the scores of problems and responses as JSON: a list, with a failure in the place of each that failed."""
    problems, sealed, limits = pickle.loads(request)
    responses = [response.unsealed() for response in sealed]
    if getattr(score, "batches", "one") == "one":
        entries = [entry_of(lambda pair=pair: score(*pair)) for pair in zip(problems, responses, strict=True)]
    else:
        scores = score.score_batch(problems, responses, limits)
        if len(scores) != len(responses):
            raise TypeError(f"the task's score function returned {len(scores)} scores for {len(responses)} responses")
        entries = [entry_of(lambda scored=scored: scored) for scored in scores]
    return json.dumps({"scores": entries}, allow_nan=False).encode()


def entry_of(scored: Callable[[], Any]) -> dict[str, Any]:
    """Return one score as plain values; a failure where it was raised, or is not one."""
    try:
        result = scored()
        return failure(result) if isinstance(result, BaseException) else plain(result)
    # Code of others: whatever it raises is an answer.
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return failure(error)


def plain(result: Any) -> dict[str, Any]:
    """Return a score as plain values."""
    if not all(hasattr(result, name) for name in ("reward", "correct", "parts", "reason")):
        raise TypeError(f"the task's score function returned {type(result).__name__} {result!r}"[:LONGEST_REASON])
    return {
        "reward": None if result.reward is None else float(result.reward),
        "correct": None if result.correct is None else bool(result.correct),
        "parts": numbers(result.parts),
        "reason": str(result.reason),
        "values": numbers(getattr(result, "values", {})),
    }


def numbers(named: Any) -> dict[str, float]:
    """Return named numbers as such; raises for one that JSON cannot write."""
    found = {str(name): float(value) for name, value in named.items()}
    json.dumps(found, allow_nan=False)
    return found


def failure(error: BaseException) -> dict[str, Any]:
    """Return an exception as plain values: one line, and the traceback."""
    lines = str(error).strip().splitlines()
    message = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    text = "".join(traceback.format_exception(error))
    return {
        "failure": message[:LONGEST_REASON],
        "message": str(error),
        "traceback": text[-LONGEST_TRACEBACK:],
        "is_timeout": isinstance(error, TimeoutError),
    }


def serve() -> None:
    """Answers requests until there are no more."""
    requests, replies = claim_pipes()
    end_with_parent()

    def send(payload: bytes) -> None:
        replies.write(pack(payload))
        replies.flush()

    start = read_payload(requests)
    if start is None:
        return
    try:
        score = load(pickle.loads(start))
    except (Exception, SystemExit) as error:  # code of others: whatever it raises is an answer
        send(json.dumps(failure(error)).encode())
        return
    send(json.dumps({"batches": getattr(score, "batches", "one")}).encode())
    while (request := read_payload(requests)) is not None:
        try:
            reply = reply_to(score, request)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            reply = json.dumps(failure(error)).encode()
        send(reply)


if __name__ == "__main__":
    serve()

"""`klimb serve` under load: many clients over loopback, each answer looked for in the store afterwards.

    python -m benchmarks.serving --clients 32 --seconds 120

It starts a server of its own, lets one client ask for a while, then all of them, and prints tokens a second of both,
the ratio, and how many answers that a client has received whole are missing in the store (which is 0).
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from klimb.experience import Store

QUESTIONS = (
    "Name a fruit.",
    "What is the capital of France?",
    "Write a line about the sea.",
    "How do I boil an egg?",
    "Is the moon bigger than the sun?",
    "Give me a word that rhymes with tree.",
)


@dataclass
class Tally:
    """What clients have received.

    Attributes:
        ids: of answers that came whole.
        num_tokens: of them.
        statuses: how often each.
        seconds: that each answer took.
    """

    ids: list[str] = field(default_factory=list[str])
    num_tokens: int = 0
    statuses: dict[int, int] = field(default_factory=dict[int, int])
    seconds: list[float] = field(default_factory=list[float])


async def ask_until(client: httpx.AsyncClient, end: float, number: int, tally: Tally, *, max_tokens: int) -> None:
    """Ask one question after the other until the time is over; what is on its way then is waited for."""
    turn = 0
    while time.monotonic() < end:
        question = QUESTIONS[(number + turn) % len(QUESTIONS)]
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "min_tokens": max_tokens,
            "seed": number * 1000 + turn,
        }
        begun = time.monotonic()
        try:
            answer = await client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError:
            return  # the server is gone: what had not come whole need not be there
        tally.statuses[answer.status_code] = tally.statuses.get(answer.status_code, 0) + 1
        if answer.status_code == 200:
            content = answer.json()
            tally.ids.append(content["id"])
            tally.num_tokens += content["usage"]["completion_tokens"]
            tally.seconds.append(time.monotonic() - begun)
        turn += 1


async def load(address: str, *, clients: int, seconds: float, max_tokens: int) -> tuple[Tally, float]:
    """Return what came of this many clients, and how long it took."""
    tally = Tally()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
        begun = time.monotonic()
        end = begun + seconds
        await asyncio.gather(
            *(ask_until(client, end, number, tally, max_tokens=max_tokens) for number in range(clients))
        )
        return tally, time.monotonic() - begun


def start(model: str, store: Path, options: Sequence[str] = ()) -> tuple[subprocess.Popen[bytes], str]:
    """Return a server's process and its address, once it answers."""
    program = [sys.executable, "-c", "from klimb.workbench.cli import main; main()"]
    command = [*program, "serve", model, "--store", str(store), "--port", "0", *options]
    log = store.with_name("server.log")
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "COLUMNS": "200"})
    while process.poll() is None:
        if found := re.search(r"http://[\d.]+:\d+", log.read_text()):
            return process, found[0]
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def missing(store: Path, ids: Sequence[str]) -> list[str]:
    """Return those of the ids that are not in the store, and check that all there can be read."""
    there = {sample.sample_id for sample in Store(store).samples()}
    return [each for each in ids if each not in there]


def measure(model: str, *, clients: int, seconds: float, max_tokens: int, kill: bool) -> dict[str, Any]:
    """Return the numbers of one run."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        process, address = start(model, store)
        one, one_seconds = asyncio.run(load(address, clients=1, seconds=seconds / 2, max_tokens=max_tokens))
        if kill:
            timer = asyncio.run(_load_and_kill(process, address, clients, seconds, max_tokens))
            many, many_seconds = timer
        else:
            many, many_seconds = asyncio.run(load(address, clients=clients, seconds=seconds, max_tokens=max_tokens))
            process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        alone, together = one.num_tokens / one_seconds, many.num_tokens / many_seconds
        return {
            "clients": clients,
            "answers": len(one.ids) + len(many.ids),
            "statuses": many.statuses,
            "missing_in_store": len(missing(store, [*one.ids, *many.ids])),
            "tokens_a_second_of_one": round(alone, 2),
            "tokens_a_second_of_all": round(together, 2),
            "ratio": round(together / alone, 2),
            "median_seconds_of_all": round(sorted(many.seconds)[len(many.seconds) // 2], 2) if many.seconds else None,
            "killed": kill,
        }


async def _load_and_kill(
    process: subprocess.Popen[bytes], address: str, clients: int, seconds: float, max_tokens: int
) -> tuple[Tally, float]:
    loading = asyncio.create_task(load(address, clients=clients, seconds=seconds * 2, max_tokens=max_tokens))
    await asyncio.sleep(seconds)
    process.kill()
    return await loading


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--kill", action="store_true", help="end the server with SIGKILL under load")
    asked = parser.parse_args()
    found = measure(
        asked.model, clients=asked.clients, seconds=asked.seconds, max_tokens=asked.max_tokens, kill=asked.kill
    )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

"""Rows per second and peak memory of an import, in a fresh process.

    python benchmarks/import_rows.py --rows 1000000
    python benchmarks/import_rows.py --kind vllm --rows 100000 --tokens 200
    python benchmarks/import_rows.py --rows 100000 --ending .csv.zst

`table` writes rows of prompt, response, reward and id; `vllm` writes requests and responses with token ids and
log-probabilities. The ending says the form of the file, as it does to `klimb import`. The file and the store are in a
temporary folder (`--folder` for another disk) and are removed.
"""

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import TextIOWrapper
from itertools import chain
from pathlib import Path

import pyarrow as pa

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.store import Store

MIB = 1024**2


def main() -> None:
    """Write the rows, import them in another process, print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["table", "vllm"], default="table")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=200, help="per response, of vllm's rows")
    parser.add_argument("--ending", choices=[".jsonl", ".jsonl.zst", ".csv", ".csv.zst"], default=".jsonl")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--import-into", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.import_into is not None:
        import_and_measure(arguments.folder, arguments.import_into, arguments.kind)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / f"rows{arguments.ending}"
        rows = table_rows(arguments.rows) if arguments.kind == "table" else vllm_rows(arguments.rows, arguments.tokens)
        write_rows(rows, path)
        print(f"{arguments.kind}: {arguments.rows:,} rows, {path.stat().st_size / MIB:,.0f} MiB", flush=True)
        command = [sys.executable, __file__, "--kind", arguments.kind, "--folder", str(path)]
        subprocess.run([*command, "--import-into", str(Path(folder) / "store")], check=True)


def write_rows(rows: Iterator[dict[str, object]], path: Path) -> None:
    """Write the rows in the form that the ending says; a list or an object in CSV is JSON."""
    packing = "zstd" if path.suffix == ".zst" else None
    with pa.output_stream(str(path), compression=packing) as packed, TextIOWrapper(packed, "utf-8", newline="") as file:
        if ".csv" not in path.suffixes:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            return
        first = next(rows)
        writer = csv.DictWriter(file, list(first))
        writer.writeheader()
        for row in chain([first], rows):
            cells = {name: json.dumps(cell) if isinstance(cell, dict) else cell for name, cell in row.items()}
            writer.writerow(cells)


def import_and_measure(path: Path, store: Path, kind: str) -> None:
    """Import and print rows per second, peak resident memory and the store's size."""
    started = time.monotonic()
    report = import_rows(Store(store), path, kind=kind, rules=ImportRules(now=time.time()))
    seconds, busy = time.monotonic() - started, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(file.stat().st_size for file in store.glob("*.parquet")) / MIB
    print(
        f"{report.tally.num_added:,} added, {report.num_rejected} rejected in {seconds:.0f} s ({busy:.0f} s of CPU): "
        f"{report.tally.num_rows / seconds:,.0f} rows/s, peak {peak:,.0f} MiB, store {size:,.0f} MiB"
    )


def table_rows(count: int) -> Iterator[dict[str, object]]:
    """Sum, right in half of the rows, eight answers to each."""
    draw = random.Random(0)
    for number in range(count):
        a, b = number // 8 % 1000, number // 8000
        is_right = draw.random() < 0.5
        answer = a + b + (not is_right)
        yield {
            "id": f"row-{number}",
            "group": f"{a}+{b}",
            "prompt": f"What is {a} + {b}? Answer with the number.",
            "response": f"The sum of {a} and {b} is {answer}.",
            "reward": float(is_right),
            "model": "demo",
        }


def vllm_rows(count: int, num_tokens: int) -> Iterator[dict[str, object]]:
    """Return requests at temperature 1 with responses of `num_tokens` random tokens."""
    draw = random.Random(0)
    for number in range(count):
        ids = [draw.randrange(50_000) for _ in range(num_tokens)]
        content = [{"token": f"token_id:{i}", "logprob": -draw.random(), "bytes": None} for i in ids]
        choice = {"index": 0, "message": {"role": "assistant", "content": "a " * num_tokens}, "finish_reason": "length"}
        request = {
            "messages": [{"role": "user", "content": f"Question {number // 8}"}],
            "temperature": 1.0,
            "top_p": 1.0,
        }
        yield {
            "request": request,
            "response": {
                "id": f"chatcmpl-{number}",
                "model": "demo",
                "prompt_token_ids": [1, 2, 3, number % 1000],
                "choices": [{**choice, "token_ids": ids, "logprobs": {"content": content}}],
            },
            "reward": float(number % 2),
        }


if __name__ == "__main__":
    main()

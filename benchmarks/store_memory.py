"""Peak memory of reading a store that is larger than memory should be, in a process of its own.

    python benchmarks/store_memory.py --gigabytes 1

Writes a store of random samples (256 prompt tokens, 512 response tokens with log-probabilities, 2 kB of text; nothing
compresses well) into a temporary folder, then reads it:

    samples      every sample, as a trainer or an audit reads them
    where        the samples with reward >= 0.5, streamed
    groups       64 random groups of 8
    append       the last 1000 samples once more, which adds nothing

Peak memory is that of the whole process, libraries included; `start` is what it is before the store is opened.
"""

import argparse
import base64
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from klimb.experience import Sample, SamplingSettings
from klimb.experience.store import Store

GROUP, SEGMENT_GROUPS = 8, 1250
PROMPT_TOKENS, RESPONSE_TOKENS, TEXT_BYTES = 256, 512, 1500
TASKS = ("samples", "where", "groups", "append")


def random_group(number: int) -> list[Sample]:
    """One prompt and eight responses, the same for the same number."""
    generator = np.random.default_rng(number)
    prompt_ids = tuple(generator.integers(49152, size=PROMPT_TOKENS).tolist())
    prompt = base64.b64encode(generator.bytes(TEXT_BYTES // 2)).decode()
    return [random_response(generator, f"g{number:08d}", index, prompt, prompt_ids) for index in range(GROUP)]


def random_response(
    generator: np.random.Generator, group_id: str, index: int, prompt: str, prompt_ids: tuple[int, ...]
) -> Sample:
    """Return a response of random tokens with log-probabilities that were float32 once, as a sampler's are."""
    return Sample(
        sample_id=f"{group_id}-{index:04d}",
        group_id=group_id,
        prompt=({"role": "user", "content": prompt},),
        prompt_ids=prompt_ids,
        response=base64.b64encode(generator.bytes(TEXT_BYTES)).decode(),
        response_ids=tuple(generator.integers(49152, size=RESPONSE_TOKENS).tolist()),
        finish_reason="length",
        reward=float(index % 2),
        log_mu=tuple((-generator.exponential(size=RESPONSE_TOKENS)).astype(np.float32).tolist()),
        log_mu_provenance="sampler",
        sampling=SamplingSettings(),
        model="random",
        metadata={"problem_id": group_id},
    )


def segments() -> Iterator[list[Sample]]:
    """Ten thousand samples each, without end."""
    start = 0
    while True:
        yield [sample for number in range(start, start + SEGMENT_GROUPS) for sample in random_group(number)]
        start += SEGMENT_GROUPS


def write(folder: Path, num_bytes: float) -> dict[str, float]:
    """Append segments until the files are that large."""
    store, started, num_samples = Store(folder), time.monotonic(), 0
    for samples in segments():
        num_samples += store.append(samples).num_added
        size = sum(segment.num_bytes for segment in store.files().samples)
        if size >= num_bytes:
            return {"samples": num_samples, "bytes": size, "seconds": time.monotonic() - started}
    raise AssertionError("segments() has no end")


def read(task: str, folder: Path) -> dict[str, float]:
    """One kind of access in this process."""
    start, started = peak_gigabytes(), time.monotonic()
    store = Store(folder)
    if task == "append":
        last = store.count() // GROUP
        samples = [sample for number in range(last - 125, last) for sample in random_group(number)]
        started = time.monotonic()
        result = store.append(samples)
        if result.num_duplicates != len(samples):
            raise AssertionError(f"the samples of the store should be known to it: {result}")
        count = len(samples)
    elif task == "groups":
        chosen = np.random.default_rng(0).choice(store.group_ids(), size=64, replace=False).tolist()
        count = sum(len(group) for group in store.groups(chosen))
    else:
        count = sum(1 for _ in store.samples(where="reward >= 0.5" if task == "where" else ""))
    return {"start": start, "peak": peak_gigabytes(), "samples": count, "seconds": time.monotonic() - started}


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far, in 10⁹ bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def in_own_process(*arguments: str) -> dict[str, float]:
    """Return what this script prints as JSON when called with the arguments."""
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Write a store, reads it in fresh processes and prints what each needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the files on disk, in 10⁹ bytes")
    parser.add_argument("--task", choices=("write", *TASKS), help="do one thing in this process and print JSON")
    parser.add_argument("--folder", type=Path, help="of the store, with --task")
    arguments = parser.parse_args()
    if arguments.task:
        isolated = arguments.folder
        done = (
            write(isolated, arguments.gigabytes * 1e9) if arguments.task == "write" else read(arguments.task, isolated)
        )
        print(json.dumps(done))
        return
    with tempfile.TemporaryDirectory() as folder:
        written = in_own_process("--task", "write", "--folder", folder, "--gigabytes", str(arguments.gigabytes))
        rate = written["samples"] / written["seconds"]
        print(f"{written['samples']:.0f} samples, {written['bytes'] / 1e9:.2f} GB, written at {rate:.0f}/s", flush=True)
        for task in TASKS:
            done = in_own_process("--task", task, "--folder", folder)
            print(
                f"{task:<8} peak {done['peak']:.2f} GB (start {done['start']:.2f}), {done['samples']:.0f} samples in "
                f"{done['seconds']:.1f} s, {done['samples'] / done['seconds']:.0f}/s",
                flush=True,
            )


if __name__ == "__main__":
    main()

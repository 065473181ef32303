"""The part of `sampler_speed.py` that runs in an environment with vLLM; needs nothing of klimb.

Reads the task as JSON from the standard input and writes a JSON list of tokens per second to the file that it names:
vLLM's own processes print to the standard output, too.
"""

import json
import os
import sys
import time
from pathlib import Path

# All cores compute, as for the others; otherwise vLLM keeps one for its own bookkeeping.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0)))))
os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")

from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Run the task once to warm up, then `repeats` times."""
    task = json.load(sys.stdin)
    longest = len(task["prompts"][0]) + task["max_tokens"]
    model = LLM(
        model=task["model"],
        dtype=task["dtype"],
        max_model_len=longest,
        max_num_seqs=task["max_batch"],
        enable_prefix_caching=True,
        # Of all memory, for keys and values; its default does not start while another process holds a tenth.
        gpu_memory_utilization=0.4,
    )
    settings = SamplingParams(
        n=task["group"],
        temperature=1.0,
        max_tokens=task["max_tokens"],
        stop_token_ids=task["end_ids"],
        ignore_eos=not task["end_ids"],
        detokenize=False,
        # What LocalSampler records as well: the log-probability of each drawn token.
        logprobs=0,
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in task["prompts"]]
    rates = []
    for _ in range(task["repeats"] + 1):
        # Within a call prompts are shared by their groups, between calls by nobody.
        model.reset_prefix_cache()
        start = time.perf_counter()
        outputs = model.generate(prompts, settings, use_tqdm=False)
        seconds = time.perf_counter() - start
        rates.append(sum(len(answer.token_ids) for output in outputs for answer in output.outputs) / seconds)
    Path(task["result"]).write_text(json.dumps(rates[1:]))


if __name__ == "__main__":
    main()

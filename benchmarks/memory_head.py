"""Peak memory of one training step: klimb's scoring against full logits, each in a process of its own.

    python benchmarks/memory_head.py

One step of AdamW on SmolLM2-135M with 8 prompts of 40 tokens and 8 responses of 64 tokens to each, all at once:

    klimb        prompts once, log-probabilities by the tiled head
    full-head    the same hidden states, but [response tokens, vocabulary] logits
    full-rows    plain transformers: 64 rows of 104 tokens and their [row, position, vocabulary] logits

Peak memory is that of the whole process (weights, gradients, optimizer state and libraries included). The numbers of
activations and of the head are told apart by `full-head`, which differs from `klimb` in the head alone.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import cast

import torch
from torch import Tensor, nn

from klimb.policies import Policy, load_policy
from klimb.policies.padded import predicting_hidden

NUM_PROMPTS, NUM_SAMPLES, PROMPT_TOKENS, RESPONSE_TOKENS = 8, 8, 40, 64
VARIANTS = ("klimb", "full-head", "full-rows")


def rows(policy: Policy) -> tuple[list[list[int]], Tensor, Tensor]:
    """Random prompts, the prompt of each row, and random responses."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(policy.num_vocab, (NUM_PROMPTS, PROMPT_TOKENS), generator=generator).tolist()
    index = torch.arange(NUM_PROMPTS).repeat_interleave(NUM_SAMPLES)
    return prompts, index, torch.randint(policy.num_vocab, (len(index), RESPONSE_TOKENS), generator=generator)


def chosen_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the naive way, in float32."""
    return logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def log_probs(variant: str, policy: Policy) -> Tensor:
    """Log-probabilities of all response tokens, by the variant."""
    prompts, index, ids = rows(policy)
    if variant == "klimb":
        return policy.log_probs(prompts, index, ids, torch.ones_like(ids, dtype=torch.bool)).log_pi
    with torch.autocast(policy.device.type, policy.compute_dtype, enabled=policy.compute_dtype == torch.bfloat16):
        model = policy.causal_lm
        if variant == "full-head":
            hidden = predicting_hidden(model.get_decoder(), prompts, index, ids, share_prompts=True)
            return chosen_log_probs(cast(nn.Linear, model.get_output_embeddings())(hidden), ids)
        full = torch.cat([torch.tensor(prompts)[index], ids], dim=1)
        logits = model(input_ids=full, use_cache=False).logits[:, PROMPT_TOKENS - 1 : -1]
        return chosen_log_probs(logits, ids)


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(variant: str, dtype: str) -> dict[str, float]:
    """One training step in this process."""
    policy = load_policy("smollm2-135m", dtype=dtype, device="cpu")
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-6, fused=True)
    loaded, start = peak_gigabytes(), time.process_time()
    log_probs(variant, policy).mean().neg().backward()
    optimizer.step()
    return {"loaded": loaded, "peak": peak_gigabytes(), "cpu_seconds": time.process_time() - start}


def main() -> None:
    """Measures every variant in a process of its own and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3, help="the allocator makes peaks vary by up to a quarter")
    parser.add_argument("--variant", choices=VARIANTS, help="measure one variant in this process and print JSON")
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(arguments.variant, arguments.dtype)))
        return
    print(f"{NUM_PROMPTS * NUM_SAMPLES} x ({PROMPT_TOKENS} + {RESPONSE_TOKENS}) tokens, dtype {arguments.dtype}")
    peaks: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.repeats):
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--dtype", arguments.dtype, "--variant", variant]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            peaks[variant].append(result["peak"])
            print(f"{variant:<10} {result['peak']:6.2f} GiB {result['cpu_seconds']:7.1f} CPU s", flush=True)
    medians = {variant: statistics.median(values) for variant, values in peaks.items()}
    for variant, median in medians.items():
        print(f"median {variant:<10} {median:6.2f} GiB, {median / medians['klimb']:.2f} of klimb")


if __name__ == "__main__":
    main()

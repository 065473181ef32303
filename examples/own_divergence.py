"""A divergence of one's own, trained with from Python: `python own_divergence.py [MODEL]`."""

import os
import sys

# OpenMP threads that spin while they wait are very slow beside other processes; said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import klimb
from klimb.divergences import Divergence

# Neyman's chi-squared. f and its derivative are all it takes; both are checked, the rest follows from them.
neyman = Divergence("neyman", f=lambda r: (1 - r) ** 2 / r, df=lambda r: 1 - 1 / r**2)

run = klimb.train(
    {
        "task": {"kind": "arithmetic", "digits": 1},
        "sampling": {"num_prompts": 4, "num_samples": 8, "max_new_tokens": 16},
        "objective": {"beta": 1e-3},
        "advantages": {"group_filter": False},
        "optimizer": {"learning_rate": 1e-5, "warmup_steps": 0},
        "training": {"num_steps": 3, "num_minibatches": 2},
        "evaluation": {"num_problems": 20},
        "run": {"name": "neyman"},
    },
    divergence=neyman,
    model=sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m",
)

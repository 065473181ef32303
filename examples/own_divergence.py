"""A divergence of one's own, trained with from Python: `python own_divergence.py [MODEL]`."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

# OpenMP threads that spin while they wait are very slow beside other processes; said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from klimb.divergences import Divergence
from klimb.losses import Objective
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import Scorer, arithmetic
from klimb.training import (
    AdvantageSettings,
    LoopSettings,
    OptimizerSettings,
    RolloutSettings,
    TrainingSettings,
    train,
)

# Neyman's chi-squared. f and its derivative are all it takes; both are checked, the rest follows from them.
neyman = Divergence("neyman", f=lambda r: (1 - r) ** 2 / r, df=lambda r: 1 - 1 / r**2)

model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m"
policy, task = load_policy(model), arithmetic(digits=1)
settings = LoopSettings(
    training=TrainingSettings(num_steps=3),
    sampling=RolloutSettings(num_prompts=4, num_samples=8, max_new_tokens=16),
    advantages=AdvantageSettings(group_filter=False),
    optimizer=OptimizerSettings(learning_rate=1e-5, warmup_steps=0),
)
with Scorer(task) as scorer, TemporaryDirectory() as folder:
    train(
        policy,
        LocalSampler(policy),
        scorer,
        Objective(divergence=neyman, beta=1e-3),
        problems=task.train,
        settings=settings,
        folder=Path(folder),
        on_step=lambda metrics, samples: print(f"step {metrics['step']:.0f}: reward {metrics['reward_mean']:.3f}"),
    )

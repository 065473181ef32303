"""klimb's side: its own `train`, a step at a time."""

# First of all: it says how OpenMP's threads wait, as for `klimb train`.
import klimb.workbench  # isort: skip

import importlib.metadata
import sys
from collections.abc import Mapping

from benchmarks.klimb_steps import phases_of, prepare_policy, train_steps
from benchmarks.vs_trl.turns import Turn
from benchmarks.workload import NEVER, Workload, make_task


def main() -> None:
    """Trains until the parent says no more; the workload is the first argument, as JSON."""
    turn, workload = Turn(), Workload.from_json(sys.argv[1])
    policy = prepare_policy(workload)
    prompts = [policy.render(problem.messages) for problem in make_task(workload, policy.render).train]
    turn.announce(
        version=importlib.metadata.version(klimb.__name__),
        setting=policy.describe(),
        num_prompt_tokens=sum(map(len, prompts)),
    )

    def on_step(metrics: Mapping[str, float]) -> None:
        turn.report(
            phases_of(metrics, seconds=turn.elapsed()),
            num_tokens_sampled=metrics["num_tokens_sampled"],
            num_tokens_trained=metrics["num_tokens_trained"],
            reward_mean=metrics["reward_mean"],
        )
        turn.wait()

    turn.wait()
    train_steps(policy, workload, num_steps=NEVER, on_step=on_step)


if __name__ == "__main__":
    main()

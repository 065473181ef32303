"""A run from Python, with a task, a reward and a callback of one's own: `python python_run.py [MODEL]`."""

import os
import sys

# OpenMP threads that spin while they wait are very slow beside other processes; said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import klimb
from klimb.tasks import Problem, ProblemSet, chat

WORDS = ("tide", "lamp", "stone", "river", "crown", "bread", "glass", "north", "cloud", "field", "light", "ocean")
problems = tuple(Problem(problem_id=word, messages=chat(f"Write {word} in capitals."), answer=word) for word in WORDS)


def in_capitals(prompt, response, answer, metadata):
    """1 for the word in capitals, less a little for every other character."""
    correct = answer.upper() in response
    return {"correct": float(correct), "length": -0.002 * max(0, len(response) - len(answer))}


class Watch:
    """Say what the run has learnt, and end it when that is enough."""

    def on_step(self, run, metrics, samples):
        """See a step."""
        print(f"step {run.step} of {run.num_steps}: reward {metrics['reward_mean']:.3f}, {samples[0].response!r}")
        if metrics["reward_mean"] > 0.95:
            run.stop("it writes in capitals")


run = klimb.train(
    {  # the keys of a run file
        "sampling": {"num_prompts": 8, "num_samples": 8, "max_new_tokens": 12},
        "optimizer": {"learning_rate": 1e-5},
        "training": {"num_steps": 20, "num_minibatches": 2},
        "run": {"name": "capitals-in-python"},
    },
    task=ProblemSet(name="capitals", train=problems[:9], held_out=problems[9:]),
    reward=in_capitals,
    model=sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m",
    callbacks=[Watch()],
    show=False,
)
print(f"{run.before.mean:.0%} before, {run.after.mean:.0%} after; klimb report {run.folder}")

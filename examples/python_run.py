"""A run from Python, with a task, a reward and a callback of one's own: `python python_run.py [MODEL]`."""

import os
import sys

# OpenMP threads that spin while they wait are very slow beside other processes; said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import klimb
from klimb.tasks import Problem, ProblemSet, chat

THINGS = ("animal", "bird", "city", "colour", "drink", "flower", "fruit", "metal", "month", "river", "sport", "tree")
problems = tuple(Problem(problem_id=each, messages=chat(f"Name a {each}."), answer="") for each in THINGS)


def brief(prompt, response, answer, metadata):
    """1 for one word, a half for two, a third for three; nothing for no word."""
    num_words = len(response.split())
    return 1 / num_words if num_words else 0.0


class Watch:
    """Say what the run has learnt, and end it when that is enough."""

    def on_step(self, run, metrics, samples):
        """See a step."""
        print(f"step {run.step} of {run.num_steps}: reward {metrics['reward_mean']:.3f}, {samples[0].response!r}")
        if metrics["reward_mean"] > 0.9:
            run.stop("it is brief")


run = klimb.train(
    {  # the keys of a run file
        "sampling": {"num_prompts": 8, "num_samples": 8, "max_new_tokens": 12},
        "optimizer": {"learning_rate": 1e-5},
        "training": {"num_steps": 20, "num_minibatches": 2},
        "run": {"name": "brief"},
    },
    task=ProblemSet(name="one thing", train=problems[:9], held_out=problems[9:]),
    reward=brief,
    model=sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m",
    callbacks=[Watch()],
    show=False,
)
assert run.before and run.after
print(f"reward {run.before.mean:.3f} before, {run.after.mean:.3f} after; klimb report {run.folder}")

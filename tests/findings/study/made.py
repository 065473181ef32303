"""Studies made from random numbers: what each method is worth is known."""

import numpy as np

from klimb.findings.study.scores import EvaluationPoint, RunResult, StudyScores

BUDGET = 1000


def point(mean_of_problem, *, tokens, num_samples=4, when="during", is_accuracy=True):
    """An evaluation whose problems have these means."""
    problems = tuple(float(mean) for mean in mean_of_problem)
    scored = [mean for mean in problems if np.isfinite(mean)]
    return EvaluationPoint(
        when=when,
        step=tokens // 10,
        num_tokens=tokens,
        seconds=tokens / 10,
        mean=float(np.mean(scored)) if scored else float("nan"),
        problems=problems,
        pass_at={1: float(np.mean(problems)), num_samples: float(np.mean([mean > 0 for mean in problems]))},
        num_samples=num_samples,
        num_errors=num_samples * (len(problems) - len(scored)),
        is_accuracy=is_accuracy,
    )


def run_of(*paths, task="sums", method="grpo", setting="", seed=0, status="finished", **more):
    """A run whose evaluations have these problem means, equally spaced over the budget."""
    at = np.linspace(0, BUDGET, len(paths)).astype(int)
    points = tuple(point(path, tokens=int(tokens)) for path, tokens in zip(paths, at, strict=True))
    return RunResult(
        task=task,
        method=method,
        setting=setting,
        seed=seed,
        status=status,
        budget_spent=float(at[-1]) if len(at) else 0.0,
        evaluations=points,
        **more,
    )


def study_of(runs, *, baseline="grpo", name="made", **more):
    """A study of these runs under a budget of tokens."""
    return StudyScores(name=name, baseline=baseline, budget_kind="tokens", budget=BUDGET, runs=tuple(runs), **more)


def random_study(
    worth, *, tasks=("sums",), settings=("",), num_seeds=5, num_problems=24, num_samples=8, spread=0.01, first_seed=0
):
    """Runs that climb from 0.2 to the method's worth, with noise of seeds, problems and samples."""
    generator = np.random.default_rng(first_seed)
    runs = []
    for task in tasks:
        hardness = generator.normal(0, 0.12, size=num_problems)
        for setting in settings:
            for method, final in worth.items():
                for seed in range(num_seeds):
                    shift = generator.normal(0, spread)
                    runs.append(
                        run_of(
                            *(
                                _drawn(0.2 + (final + shift - 0.2) * share + hardness, num_samples, generator)
                                for share in (0, 0.6, 0.9, 0.95, 1)
                            ),
                            task=task,
                            method=method,
                            setting=setting,
                            seed=seed,
                        )
                    )
    return study_of(runs)


def _drawn(chances, num_samples, generator):
    return generator.binomial(num_samples, np.clip(chances, 0, 1)) / num_samples

"""Five data sets that differ in one thing each, made from real samples, and the verdict of the audit on each.

    python benchmarks/audit_cases.py

The model answers additions; the answers are stored as they are (healthy), with every log-probability moved by one place
(shifted), as texts alone (text-only), with 95 % of the groups chosen to have equal rewards (zero-variance), and drawn
again with top-p 0.5 (top-p). Each is written as a segment, read back, scored under the same model and audited.
The exit status is 1 if a verdict is not the expected one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from klimb.experience import Sample, SamplingSettings, read_samples, write_samples
from klimb.findings.audit import AuditReport, Thresholds, VerdictKind, audit
from klimb.policies import Policy, load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import Problem, Response, Scorer, arithmetic
from klimb.training import score_samples

GROUP = 8
EQUAL_GROUP = 4
NUM_EQUAL = 0.95
EXPECTED: dict[str, VerdictKind] = {
    "healthy": "rl-with-correction",
    "shifted": "kto-or-dro",
    "text-only": "behaviour-cloning",
    "zero-variance": "collect-more",
    "top-p": "ratio-free-rl",
}


def main() -> None:
    """Draw, make the five cases, audit each, print one line and the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=16, help="of a response at most")
    parser.add_argument("--hoped-gain", type=float, default=0.1)
    arguments = parser.parse_args()

    policy = load_policy(arguments.model)
    print(policy.describe(), flush=True)
    plain = SamplingSettings(max_new_tokens=arguments.tokens)
    drawn = draw(policy, arguments.prompts, plain)
    cut_off = draw(policy, arguments.prompts, replace(plain, top_p=0.5))
    log_pi = {
        (sample.prompt_ids, sample.response_ids): scores
        for sample, scores in zip(drawn + cut_off, score_samples(policy, drawn + cut_off, max_tokens=4096), strict=True)
    }
    cases = {
        "healthy": drawn,
        "shifted": [shifted(sample) for sample in drawn],
        "text-only": [text_only(sample) for sample in drawn],
        "zero-variance": equal_groups(drawn),
        "top-p": cut_off,
    }
    wrong = 0
    for name, samples in cases.items():
        report, seconds = audited(name, samples, policy, log_pi, Thresholds(hoped_gain=arguments.hoped_gain))
        verdict = report.verdict
        is_right = verdict.kind == EXPECTED[name]
        wrong += not is_right
        print(f"{name:<14} {verdict.kind:<19} {'as expected' if is_right else 'EXPECTED ' + EXPECTED[name]}")
        print(f"  decided by: {verdict.decided_by}\n  {verdict.reason}\n  {verdict.interval_note}")
        print(f"  {report.num_samples} samples, {report.num_groups} groups, audited in {seconds:.1f} s\n", flush=True)
    sys.exit(1 if wrong else 0)


def draw(policy: Policy, num_prompts: int, settings: SamplingSettings) -> list[Sample]:
    """Rewarded answers to additions of one digit, 8 for each prompt."""
    task = arithmetic(operators="+", digits=1, held_out_fraction=0.0)
    problems = task.train[:num_prompts]
    prompts = [policy.render(problem.messages) for problem in problems]
    generator = torch.Generator().manual_seed(0)
    completions = LocalSampler(policy).sample(prompts, num_samples=GROUP, settings=settings, generator=generator)
    samples: list[Sample] = []
    asked: list[Problem] = []
    for number, (problem, prompt_ids, answers) in enumerate(zip(problems, prompts, completions, strict=True)):
        for index, answer in enumerate(answers):
            asked.append(problem)
            samples.append(
                Sample(
                    sample_id=f"g{number:04d}-{index:02d}",
                    group_id=f"g{number:04d}",
                    prompt=tuple(problem.messages),
                    prompt_ids=prompt_ids,
                    response=policy.decode(answer.response_ids),
                    response_ids=tuple(answer.response_ids),
                    finish_reason=answer.finish_reason,
                    log_mu=tuple(answer.log_mu),
                    log_mu_provenance="sampler",
                    sampling=settings,
                    model=policy.name,
                    created_at=time.time(),
                )
            )
    responses = [
        Response(text=s.response, num_tokens=len(s.response_ids), finish_reason=s.finish_reason) for s in samples
    ]
    with Scorer(task) as scorer:
        scores = scorer.score_many(asked, responses)
    return [replace(sample, reward=score.reward) for sample, score in zip(samples, scores, strict=True)]


def shifted(sample: Sample) -> Sample:
    """Every log-probability one place late, the first being filled with 0."""
    return replace(sample, log_mu=(0.0, *(sample.log_mu or ())[:-1]))


def text_only(sample: Sample) -> Sample:
    """Return what a log of texts would hold."""
    return replace(
        sample,
        prompt_ids=(),
        response_ids=(),
        log_mu=None,
        log_mu_provenance="absent",
        reward=None,
        sampling=None,
        finish_reason="unknown",
    )


def equal_groups(samples: Sequence[Sample]) -> list[Sample]:
    """Of each prompt's answers 4 with one reward (there always are among 8); in 5 % of the groups, two rewards."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group_id, []).append(sample)
    mixed = [name for name, group in groups.items() if len({sample.reward for sample in group}) > 1]
    kept_mixed = set(mixed[: round((1 - NUM_EQUAL) * len(groups))])
    chosen: list[Sample] = []
    for name, group in groups.items():
        right = [sample for sample in group if sample.reward == 1]
        others = [sample for sample in group if sample.reward != 1]
        if name in kept_mixed:
            half = min(EQUAL_GROUP // 2, len(right), len(others))
            fewer, more = sorted((right, others), key=len)
            chosen += fewer[:half] + more[: EQUAL_GROUP - half]
        else:
            chosen += max(right, others, key=len)[:EQUAL_GROUP]
    return chosen


def audited(
    name: str,
    samples: Sequence[Sample],
    policy: Policy,
    log_pi: Mapping[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, ...]],
    thresholds: Thresholds,
) -> tuple[AuditReport, float]:
    """Return the report on the samples as written and read back, and the audit's seconds without scoring."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.parquet"
        write_samples(path, samples)
        stored = read_samples(path)
    has_ids = all(sample.response_ids for sample in stored)
    started = time.perf_counter()
    report = audit(
        stored,
        data=name,
        log_pi=[log_pi[sample.prompt_ids, sample.response_ids] for sample in stored] if has_ids else None,
        decode=policy.decode if has_ids else None,
        is_logging_model=True,
        thresholds=thresholds,
    )
    return report, time.perf_counter() - started


if __name__ == "__main__":
    main()

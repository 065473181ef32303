"""Does a test fail for every slip one could make in a loss? Flips a sign, drops a w, swaps ref and μ, one at a time.

    python benchmarks/mutations.py

Each mutation replaces one line of a copy of the package and runs tests/losses and tests/divergences on that copy.
Prints the mutations that survived and exits 1 if there are any. About 7 minutes on 2 cores.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MUTATIONS = [
    # (file, text, replacement, what went wrong)
    (
        "losses/surrogates.py",
        "losses = -bounded * units.advantages",
        "losses = bounded * units.advantages",
        "sign of w·A",
    ),
    (
        "losses/surrogates.py",
        "losses + beta * penalty",
        "losses - beta * penalty",
        "sign of β in the differentiable loss",
    ),
    ("losses/surrogates.py", "regularisation = -beta *", "regularisation = beta *", "sign of β in REINFORCE"),
    ("losses/surrogates.py", "return -weight * live", "return weight * live", "sign of the REINFORCE loss"),
    (
        "losses/surrogates.py",
        "weight = clipped.w * units.advantages",
        "weight = units.advantages",
        "w dropped from w·A",
    ),
    (
        "losses/surrogates.py",
        "clipped.slope_share * regularisation",
        "regularisation",
        "slope not scaled with the clip",
    ),
    ("losses/surrogates.py", "w * units.advantages + regularisation >= 0", "units.advantages >= 0", "branch on raw A"),
    (
        "losses/surrogates.py",
        "w * units.advantages + regularisation >= 0",
        "w * units.advantages + regularisation > 0",
        "a regularised advantage of 0 taken as bad",
    ),
    (
        "losses/surrogates.py",
        "live = torch.where(clipped.keep, units.log_pi, units.log_pi.detach())",
        "live = units.log_pi",
        "gradient through a clipped branch",
    ),
    (
        "losses/surrogates.py",
        "live = torch.where(clipped.keep, log_w, log_w.detach())",
        "live = log_w",
        "gradient through a clipped differentiable branch",
    ),
    ("losses/surrogates.py", "perspective(w, v, log_w - units.log_v)", "perspective(w, v, log_w)", "x without ref"),
    (
        "losses/surrogates.py",
        "penalty.slope(w, v, log_w - units.log_v)",
        "penalty.slope(v, w, units.log_v - log_w)",
        "π and ref swapped in the slope",
    ),
    (
        "losses/surrogates.py",
        "log_w = units.log_w.detach()",
        "log_w = units.log_w",
        "gradient through the REINFORCE weight",
    ),
    (
        "losses/surrogates.py",
        "bound(units.log_v, weight_bound).exp()\n        regularisation",
        "torch.ones_like(w)\n        regularisation",
        "v taken as 1 in REINFORCE",
    ),
    ("losses/objective.py", "log_w = log_pi - clear(log_mu)", "log_w = clear(log_mu) - log_pi", "w inverted"),
    (
        "losses/objective.py",
        "clear(log_ref.detach()) - clear(log_mu)",
        "clear(log_mu) - clear(log_ref.detach())",
        "ref and μ swapped",
    ),
    (
        "losses/objective.py",
        "clear(log_ref.detach()) - clear(log_mu)",
        "log_pi.detach() - clear(log_ref.detach())",
        "v built from π",
    ),
    ("losses/objective.py", "log_mu = log_mu.detach()", "log_mu = log_mu", "gradient into μ"),
    ("losses/objective.py", "advantages = advantages.detach()", "advantages = advantages", "gradient into A"),
    ("losses/objective.py", "clear(log_ref.detach())", "clear(log_ref)", "gradient into ref"),
    (
        "losses/objective.py",
        "return torch.where(mask, values.to(dtype), 0.0)",
        "return values.to(dtype) * mask",
        "NaN under the mask times 0",
    ),
    (
        "losses/objective.py",
        "terms = spread(torch.where(units.mask, losses, 0.0)",
        "terms = spread(losses",
        "masked units counted",
    ),
    ("losses/units.py", "return values.cumsum(dim=1)", "return values", "prefix level without prefixes"),
    (
        "losses/units.py",
        'return total if level == "sequence" else total / num_tokens(mask)',
        "return total",
        "sequence-mean without the mean",
    ),
    ("losses/units.py", "losses / num_tokens(mask), 0.0)", "losses, 0.0)", "a sequence's loss counted once a token"),
    (
        "losses/reduction.py",
        "rows = rows / num_tokens(mask)",
        "rows = rows",
        "sequence-mean-token-mean without token mean",
    ),
    ("losses/reduction.py", "mask.any(dim=1).sum()", "mask.shape[0]", "padding rows counted as sequences"),
    ("losses/reduction.py", "num_sequences * reduce if", "num_sequences if", "fixed length forgotten"),
    ("losses/clips.py", "high = is_good & (w >= 1 + self.high)", "high = w >= 1 + self.high", "bad ones clipped high"),
    (
        "losses/clips.py",
        "low = ~is_good & (w <= 1 - self.low)",
        "low = is_good & (w <= 1 - self.low)",
        "good ones clipped low",
    ),
    (
        "losses/clips.py",
        "ceiling = ~is_good & (w >= self.ceiling)",
        "ceiling = ~is_good & (w >= self.ceiling + 5)",
        "ceiling not where it was set",
    ),
    ("losses/clips.py", "bounded.masked_fill(ceiling, self.ceiling)", "bounded", "value above the ceiling"),
    (
        "losses/clips.py",
        "Clipped(bounded, ~never, bounded / w,",
        "Clipped(bounded, ~never, w.new_ones(w.shape),",
        "equation 4.1 without its divergence",
    ),
    (
        "losses/clips.py",
        "return Clipped(w * inside, keep, inside,",
        "return Clipped(w, keep, inside,",
        "mask keeps the value",
    ),
    ("losses/metrics.py", "w - 1 - log_w)[mask]", "1 / w - 1 + log_w)[mask]", "kl_mu_pi in the wrong direction"),
    ("losses/metrics.py", "w * (log_w - log_v) - w + v", "(log_w - log_v) - w + v", "kl_pi_ref unweighted"),
    (
        "losses/metrics.py",
        "2 * torch.logsumexp(log_weights, 0) - ",
        "torch.logsumexp(log_weights, 0) - ",
        "ESS not squared",
    ),
    ("losses/penalties.py", "return (-bound(x)).expm1() + x", "return bound(x).expm1() - x", "k3 of the inverse ratio"),
    ("losses/penalties.py", "return -(-bound(x)).expm1()", "return (-bound(x)).expm1()", "sign of k3's slope"),
    ("losses/recipes.py", "low=0.2, high=0.2, ceiling", "low=0.2, high=0.28, ceiling", "GRPO with DAPO's clip"),
    ("losses/recipes.py", 'reduce="sequence-mean-token-mean"', 'reduce="token-mean"', "GRPO with DAPO's reduction"),
    (
        "divergences/divergence.py",
        "outside = (log_ratio.clamp(-limit, limit) - log_ratio).detach()\n    return log_ratio + outside",
        "return log_ratio.clamp(-limit, limit)",
        "a bound that silences the gradient",
    ),
    ("divergences/divergence.py", "return v * f(", "return f(", "perspective without v"),
    ("divergences/divergence.py", "return w * df(", "return v * df(", "slope with v for w"),
]


def survives(file: str, text: str, replacement: str) -> bool:
    """Return True when the tests pass on a copy of the project with this one change."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests", "pyproject.toml"):
            source = ROOT / name
            shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
        target = copy / "src" / "klimb" / file
        before = target.read_text()
        if text not in before:
            raise SystemExit(f"{file} has no line with {text!r}: bring the list of mutations up to date")
        target.write_text(before.replace(text, replacement, 1))
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "tests/losses", "tests/divergences"]
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode == 0


def main() -> int:
    """Run every mutation; the exit status is 1 if one survived."""
    survivors = []
    for file, text, replacement, slip in MUTATIONS:
        alive = survives(file, text, replacement)
        print(f"{'SURVIVED' if alive else 'killed  '}  {file:26} {slip}", flush=True)
        if alive:
            survivors.append(slip)
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} mutations killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

"""The four Kullback–Leibler divergences of the RPG family, and Jeffreys, their symmetric sum.

Source: arXiv 2505.17508, propositions E.1–E.3 and F.1–F.5, sections 3.1–3.2 (there with ref = μ).
"""

from klimb.divergences.divergence import Divergence

FKL = Divergence(
    "fkl",
    f=lambda r: -r.log(),
    df=lambda r: -1 / r,
    perspective=lambda w, v, x: -v * x,
    slope=lambda w, v, x: -v,
)
"""Forward KL(ref‖π): mass-covering. With ref = μ and no reward it is maximum likelihood on the data."""


RKL = Divergence(
    "rkl",
    f=lambda r: r * r.log(),
    df=lambda r: r.log() + 1,
    perspective=lambda w, v, x: w * x,
    slope=lambda w, v, x: w * (x + 1),
)
"""Reverse KL(π‖ref): mode-seeking."""


UFKL = Divergence(
    "ufkl",
    f=lambda r: r - 1 - r.log(),
    df=lambda r: 1 - 1 / r,
    perspective=lambda w, v, x: w - v - v * x,
    slope=lambda w, v, x: w - v,
)
"""Unnormalised forward KL: FKL plus the difference of the masses."""


URKL = Divergence(
    "urkl",
    f=lambda r: r * r.log() - r + 1,
    df=lambda r: r.log(),
    perspective=lambda w, v, x: w * x - w + v,
    slope=lambda w, v, x: w * x,
)
"""Unnormalised reverse KL: RKL minus the difference of the masses; w·k3(ref/π) sample by sample."""


JEFFREYS = Divergence(
    "jeffreys",
    f=lambda r: (r - 1) * r.log(),
    df=lambda r: r.log() + 1 - 1 / r,
    perspective=lambda w, v, x: (w - v) * x,
    slope=lambda w, v, x: w * (x + 1) - v,
)
"""Jeffreys: KL(ref‖π) + KL(π‖ref)."""

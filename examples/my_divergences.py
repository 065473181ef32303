"""Divergences of one's own: klimb train sums.toml --set objective.divergence=python:my_divergences.triangular."""

from klimb.divergences import Divergence

triangular = Divergence(
    "triangular",
    f=lambda r: (r - 1) ** 2 / (r + 1),
    df=lambda r: (r - 1) * (r + 3) / (r + 1) ** 2,
)

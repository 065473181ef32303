"""Formulas typed from the papers, in NumPy.

Each divergence is given as its contribution (p, q) ↦ q·f(p/q) of a probability p = π and a mass q = ref.
"""

import numpy as np

DIVERGENCES = {
    # arXiv 2505.17508, section 2 and appendix D
    "fkl": lambda p, q: q * np.log(q / p),
    "rkl": lambda p, q: p * np.log(p / q),
    "ufkl": lambda p, q: q * np.log(q / p) + p - q,
    "urkl": lambda p, q: p * np.log(p / q) + q - p,
    # Jeffreys 1946
    "jeffreys": lambda p, q: (p - q) * np.log(p / q),
    # Lin 1991
    "jensen-shannon": lambda p, q: (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))) / 2,
    # Pearson 1900
    "chi-squared": lambda p, q: (p - q) ** 2 / q,
    # Hellinger 1909, with the factor ½
    "hellinger-squared": lambda p, q: (np.sqrt(p) - np.sqrt(q)) ** 2 / 2,
    # Cressie and Read 1984, α = −½ and α = 1.5
    "alpha:-0.5": lambda p, q: (p**-0.5 * q**1.5 + 0.5 * p - 1.5 * q) / 0.75,
    "alpha:1.5": lambda p, q: (p**1.5 * q**-0.5 - 1.5 * p + 0.5 * q) / 0.75,
    "0.3*fkl + 0.7*rkl": lambda p, q: 0.3 * q * np.log(q / p) + 0.7 * p * np.log(p / q),
}


def triangular(p, q):
    """Vincze 1981 and Le Cam 1986: not shipped with klimb, so a user's own."""
    return (p - q) ** 2 / (p + q)


def algorithm_2(log_pi, w, advantage, c, low, high, ceiling):
    """Lines 10 to 33 of Algorithm 2 for one token: (value of the loss, weight of −∇log π in its gradient).

    `c` is C = β·(KL component): FKL 1, RKL −w(log w + 1), UFKL 1 − w, URKL −w·log w, each times β.
    """
    ell = -log_pi
    regularised = advantage + c / w
    psi = regularised * ell
    if psi >= 0:
        if w < 1 + high:
            return psi * w, regularised * w
        return (advantage + c / (1 + high)) * ell * (1 + high), 0.0
    if w <= 1 - low:
        return (advantage + c / (1 - low)) * ell * (1 - low), 0.0
    if w < ceiling:
        return psi * w, regularised * w
    return advantage * ell * ceiling + c * ell, 0.0


KL_COMPONENT = {
    "fkl": lambda w: np.ones_like(w),
    "rkl": lambda w: -w * (np.log(w) + 1),
    "ufkl": lambda w: 1 - w,
    "urkl": lambda w: -w * np.log(w),
}


def ppo_dual_clip(w, advantage, low, high, ceiling):
    """arXiv 1912.09729, equation 5, as a loss: (value, ∂value/∂log π)."""
    plain, clipped = -w * advantage, -np.clip(w, 1 - low, 1 + high) * advantage
    value = max(plain, clipped)
    slope = plain if plain >= clipped else 0.0
    if advantage < 0 and -ceiling * advantage < value:
        return -ceiling * advantage, 0.0
    return value, slope

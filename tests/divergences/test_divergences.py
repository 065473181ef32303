"""Divergences: f and f′ as defined, their products in closed form, and what a wrong definition is told."""

import math

import pytest
import torch

from klimb.divergences import (
    DIVERGENCES,
    FKL,
    HELLINGER_SQUARED,
    RKL,
    UFKL,
    URKL,
    Divergence,
    alpha_divergence,
    bound,
    divergence_named,
    mixture,
)
from tests.oracle.formulas import DIVERGENCES as FORMULAS

P = torch.tensor([0.2, 0.5, 0.3, 1e-6], dtype=torch.float64)
Q = torch.tensor([0.6, 0.1, 0.3, 0.9], dtype=torch.float64)


def derived(divergence: Divergence) -> Divergence:
    """The same divergence with perspective and slope derived from f and df."""
    return Divergence(divergence.name, f=divergence.f, df=divergence.df)


@pytest.mark.parametrize("name", FORMULAS)
def test_f_perspective_and_slope_are_those_of_the_published_formula(name):
    divergence = divergence_named(name)
    expected = torch.from_numpy(FORMULAS[name](P.numpy(), Q.numpy()))
    p = P.clone().requires_grad_()
    perspective = divergence.perspective(p, Q, p.log() - Q.log())
    torch.testing.assert_close(Q * divergence.f(P / Q), expected, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(perspective.detach(), expected, atol=1e-12, rtol=1e-9)
    derivative = torch.autograd.grad(perspective.sum(), p)[0]
    torch.testing.assert_close(divergence.df(P / Q), derivative, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(divergence.slope(P, Q, P.log() - Q.log()), P * derivative, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", [*DIVERGENCES, "alpha:0.5", "0.5*fkl + 2*jensen-shannon"])
def test_closed_forms_equal_what_follows_from_f_and_df(name):
    closed, generic = divergence_named(name), derived(divergence_named(name))
    x = P.log() - Q.log()
    torch.testing.assert_close(closed.perspective(P, Q, x), generic.perspective(P, Q, x), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(closed.slope(P, Q, x), generic.slope(P, Q, x), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("x", [-95.0, 95.0])
@pytest.mark.parametrize("name", ["fkl", "rkl", "ufkl", "urkl", "jeffreys", "jensen-shannon"])
def test_closed_forms_are_exact_in_float32_where_r_overflows(name, x):
    w, v = torch.tensor(math.exp(x / 2)), torch.tensor(math.exp(-x / 2))
    divergence = divergence_named(name)
    expected = FORMULAS[name](float(w), float(v))
    assert float(divergence.perspective(w, v, torch.tensor(x))) == pytest.approx(expected, rel=1e-5)
    assert math.isfinite(divergence.slope(w, v, torch.tensor(x)))


def test_limits_of_the_alpha_family():
    assert alpha_divergence(0) is UFKL
    assert alpha_divergence(1) is URKL
    x = P.log() - Q.log()
    near = alpha_divergence(1.002)
    torch.testing.assert_close(near.perspective(P, Q, x), URKL.perspective(P, Q, x), atol=1e-2, rtol=1e-2)
    half = alpha_divergence(0.5)
    torch.testing.assert_close(half.perspective(P, Q, x), 4 * HELLINGER_SQUARED.perspective(P, Q, x))


def test_bounded_distances_stay_in_their_bounds():
    p, q = torch.tensor([1 - 1e-12, 1e-12]).double(), torch.tensor([1e-12, 1 - 1e-12]).double()
    x = p.log() - q.log()
    assert float(divergence_named("jensen-shannon").perspective(p, q, x).sum()) == pytest.approx(math.log(2), abs=1e-9)
    assert float(HELLINGER_SQUARED.perspective(p, q, x).sum()) == pytest.approx(1, abs=1e-5)


def test_bound_caps_the_value_and_keeps_the_gradient():
    x = torch.tensor([-100.0, 3.0, 100.0], requires_grad=True)
    bounded = bound(x, 40.0)
    assert bounded.tolist() == [-40.0, 3.0, 40.0]
    assert torch.autograd.grad(bounded.sum(), x)[0].tolist() == [1.0, 1.0, 1.0]


def test_a_mixture_is_the_weighted_sum():
    x = P.log() - Q.log()
    mixed = mixture({FKL: 0.25, RKL: 2.0})
    expected = 0.25 * FKL.perspective(P, Q, x) + 2 * RKL.perspective(P, Q, x)
    torch.testing.assert_close(mixed.perspective(P, Q, x), expected)
    assert mixed.name == "0.25*fkl + 2*rkl"
    assert divergence_named("fkl + fkl").name == "2*fkl"


def test_a_divergence_of_ones_own_takes_one_line():
    own = Divergence("lin-cosh", f=lambda r: (r - 1).cosh() - 1, df=lambda r: (r - 1).sinh())
    r = torch.tensor([0.5, 1.0, 2.0])
    v = torch.full_like(r, 0.7)
    torch.testing.assert_close(own.perspective(r * v, v, r.log()), v * ((r - 1).cosh() - 1))
    torch.testing.assert_close(own.slope(r * v, v, r.log()), r * v * (r - 1).sinh())


def wrong_perspective(w, v, x):
    return w * x + v


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Divergence("d", f=lambda r: r, df=torch.ones_like), r"f\(1\) must be 0, got 1"),
        (lambda: Divergence("d", f=lambda r: r.log() - torch.inf, df=lambda r: 1 / r), r"f\(1\) must be 0"),
        (lambda: Divergence("d", f=lambda r: r * r - 1, df=lambda r: r), "df must be the derivative of f"),
        (lambda: Divergence("d", f=lambda r: r.log(), df=lambda r: 1 / r), "f must be convex"),
        (lambda: Divergence("d", f=RKL.f, df=RKL.df, perspective=wrong_perspective), "its perspective disagrees"),
        (lambda: Divergence("d", f=RKL.f, df=RKL.df, slope=URKL.slope), "its slope disagrees"),
        (lambda: divergence_named("rlk"), "unknown divergence 'rlk'; did you mean 'rkl'"),
        (lambda: divergence_named("alpha:x"), "'x' is not a number"),
        (lambda: divergence_named("x*fkl"), "'x' is not a number"),
        (lambda: alpha_divergence(math.nan), "alpha must be a finite number"),
        (lambda: alpha_divergence(1e-5), "too close to a limit"),
        (lambda: mixture({FKL: -1.0}), "the weight of 'fkl' must be finite and >= 0"),
        (lambda: mixture({}), "at least one divergence"),
    ],
)
def test_a_wrong_definition_is_told_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""What is known of a divergence by its name alone is what its functions say."""

import pytest

from klimb.divergences import DIVERGENCES
from klimb.divergences.names import SLOPES_AT_REFERENCE
from klimb.losses import penalty_named, slope_at_reference
from klimb.losses.names import slope_of_penalty


def test_every_divergence_has_its_name_in_the_table():
    assert list(SLOPES_AT_REFERENCE) == list(DIVERGENCES)


@pytest.mark.parametrize(
    "name",
    [*SLOPES_AT_REFERENCE, "alpha:0.5", "k2-in-loss", "k3-in-loss", "0.7*rkl + 0.3*fkl", "2*fkl", "fkl + 0*rkl"],
)
def test_the_slope_by_name_is_that_of_the_function(name):
    penalty = penalty_named(name)
    assert slope_of_penalty(name).constant == pytest.approx(slope_at_reference(penalty).constant, abs=1e-12)
    assert slope_of_penalty(name).is_forward_kl == slope_at_reference(penalty).is_forward_kl

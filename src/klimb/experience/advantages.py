"""Rewards in, advantages out: how much better a response did than its baseline. Pure functions of numbers.

Samples without a reward must be taken out first; a baseline never averages an invented number.
All statistics are computed in float64, and rewards that are all equal give exactly 0, never rounding dust.

The functions use the methods of the tensors they get, so that their names are read without torch.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from klimb.errors import ConfigError
from klimb.own_parts import is_own, load_part

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    Numbers = Float[Tensor, " batch"]
    Groups = Int[Tensor, " batch"]
else:
    Numbers = Groups = Any

STD_FLOOR = 1e-6
"""Added to a standard deviation before dividing; the value verl and the DAPO code use."""


ROUNDING = 1e-9
"""Rewards that lie no further apart than this share of the largest of them are equal: 0.1 + 0.2 + 0.3 and
0.3 + 0.2 + 0.1 differ in the last bit, and Adam makes a full step of any gradient."""


def are_equal(rewards: Sequence[float]) -> bool:
    """Return True where rewards differ by rounding alone; True for none and for one."""
    if not rewards:
        return True
    lowest, highest = min(rewards), max(rewards)
    # Not the difference: of rewards at the ends of the range it is infinite.
    return lowest == highest or highest - lowest <= ROUNDING * max(abs(lowest), abs(highest))


def group_mean(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """Reward minus the mean reward of its group: A_i = R_i − mean_g(R).

    Args:
        rewards: one finite number a response.
        group_ids: responses to the same prompt, drawn together, share one.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: arXiv 2505.17508 section 5 (no division by the standard deviation); Dr. GRPO, arXiv 2503.20783.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-mean")
    return _centred(values, groups).to(rewards.dtype)


def group_z_score(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """Centred reward over the group's sample standard deviation: A_i = (R_i − mean_g) / (std_g + 1e-6).

    The deviation divides by G − 1, as the released GRPO codes do.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: GRPO, arXiv 2402.03300 section 4.1.2.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-z-score")
    centred = _centred(values, groups)
    variance = _group_sum(centred**2, groups) / (_group_sum(values.new_ones(values.shape), groups) - 1)
    return (centred / (variance.sqrt() + STD_FLOOR)).to(rewards.dtype)


def leave_one_out(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """Reward minus the mean reward of the *other* responses of its group: A_i = G/(G − 1) · (R_i − mean_g(R)).

    The baseline does not depend on the response itself, so it leaves the gradient unbiased.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: RLOO, arXiv 2402.14740.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="leave-one-out")
    sizes = _group_sum(values.new_ones(values.shape), groups)
    return (_centred(values, groups) * sizes / (sizes - 1)).to(rewards.dtype)


def batch_z_score(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """Reward centred and scaled over the whole batch: A_i = (R_i − mean) / (std + 1e-6). Groups play no part.

    Raises:
        ValueError: the batch has one response only, or a reward is not finite.

    Source: REINFORCE++, arXiv 2501.03262.
    """
    values, _ = _checked(rewards, group_ids, smallest_group=1, name="batch-z-score")
    if len(values) < 2:
        raise ValueError("batch-z-score: one response has no spread; draw at least 2 responses a batch")
    if bool(_is_even(values, values.new_zeros(values.shape).long()).all()):
        return rewards.new_zeros(rewards.shape)
    return ((values - values.mean()) / (values.std() + STD_FLOOR)).to(rewards.dtype)


def group_mean_batch_z_score(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """Reward minus its group's mean, over the standard deviation of those differences in the whole batch.

    Their mean over the batch is 0 as it stands, so a group of equal rewards keeps its exact 0.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: REINFORCE++-baseline, arXiv 2501.03262.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-mean-batch-z-score")
    centred = _centred(values, groups)
    return (centred / (centred.std() + STD_FLOOR)).to(rewards.dtype)


def no_baseline(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """Return the reward itself: A_i = R_i.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="no-baseline")
    return rewards.clone()


def zero(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """A_i = 0 whatever the reward: behaviour cloning, where only the divergence teaches.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="zero")
    return rewards.new_zeros(rewards.shape)


def batch_mean(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """Reward minus the mean reward of the batch: A_i = R_i − mean(R). Groups play no part.

    Raises:
        ValueError: the batch has one response only, or a reward is not finite.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=1, name="batch-mean")
    if len(values) < 2:
        raise ValueError("batch-mean: the mean of one response is that response; use at least 2 responses a batch")
    return _centred(values, groups.new_zeros(groups.shape)).to(rewards.dtype)


def group_soft_value(rewards: Numbers, group_ids: Sequence[Hashable], *, temperature: float = 1.0) -> Numbers:
    """Reward minus the soft value of its group: A_i = R_i − V, V = β·log mean_g exp(R/β), β the temperature.

    From samples of the anchor, V estimates the optimal value of the objective E_π[R] − β·KL(π‖anchor). The log of a
    mean is biased downwards: by about var(exp(R/β))/(2·G·mean²)·β for groups of G.

    Raises:
        ValueError: a group has one response only, a reward is not finite, or the temperature is not positive.

    Source: A*-PO, arXiv 2505.20686; OAPL, arXiv 2602.19362.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-soft-value")
    return (values - _soft_value(values, groups, temperature)).to(rewards.dtype)


def batch_soft_value(rewards: Numbers, group_ids: Sequence[Hashable], *, temperature: float = 1.0) -> Numbers:
    """Reward minus the soft value of the batch: A_i = R_i − β·log mean exp(R/β). Groups play no part.

    Raises:
        ValueError: the batch has one response only, a reward is not finite, or the temperature is not positive.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=1, name="batch-soft-value")
    if len(values) < 2:
        raise ValueError("batch-soft-value: the value of one response is its reward; use at least 2 responses a batch")
    return (values - _soft_value(values, groups.new_zeros(groups.shape), temperature)).to(rewards.dtype)


def binary_feedback(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """+1 for a desirable response and −1 for an undesirable one: R > 0.5 is desirable.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="binary-feedback")
    return (~(rewards > 0.5)).to(rewards.dtype) * -2 + 1


def ones(rewards: Numbers, group_ids: Sequence[Hashable]) -> Numbers:
    """A_i = 1 whatever the reward: cloning by weight.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="ones")
    return rewards.new_ones(rewards.shape)


def scaled(values: Numbers, group_ids: Sequence[Hashable], *, over: str) -> Numbers:
    """One of several rewards, centred and in units of its spread: z_i = (r_i − mean) / (std + 1e-6).

    The sample standard deviation, over the group or over the batch. NaN stands for a response that the reward does not
    apply to: it counts in neither and gets 0, as do equal values and a single one.

    Args:
        values: one number a response, NaN where there is none.
        group_ids: responses to the same prompt share one.
        over: `group` or `batch`.

    Source: GDPO, arXiv 2601.05242 (each reward normalised by itself, within its group); TRL's `normalize_then_sum`.
    """
    wide = values.double()
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(group if over == "group" else 0, len(numbers)) for group in group_ids]
    groups = wide.new_tensor(places).long()
    is_known = ~wide.isnan()
    known = wide.masked_fill(~is_known, 0.0)
    sizes = _group_sum(is_known.double(), groups)
    centred = known - _group_sum(known, groups) / sizes.clamp(min=1)
    ends = [
        wide.new_zeros(wide.shape).scatter_reduce_(
            0, groups, wide.masked_fill(~is_known, outside), how, include_self=False
        )
        for outside, how in ((-math.inf, "amax"), (math.inf, "amin"))
    ]
    # Three times 0.1 has a mean that is not 0.1; equal values must give 0, not rounding dust over dust.
    is_even = ends[0] - ends[1] <= ROUNDING * ends[0].abs().maximum(ends[1].abs())
    centred = centred.masked_fill(~is_known | is_even[groups], 0.0)
    variance = _group_sum(centred**2, groups) / (sizes - 1).clamp(min=1)
    return (centred / (variance.sqrt() + STD_FLOOR)).to(values.dtype)


AdvantageFunction = Callable[[Numbers, Sequence[Hashable]], Numbers]


ADVANTAGES: Mapping[str, AdvantageFunction] = MappingProxyType(
    {
        function.__name__.replace("_", "-"): function
        for function in (
            group_mean,
            group_z_score,
            leave_one_out,
            batch_mean,
            batch_z_score,
            group_mean_batch_z_score,
            group_soft_value,
            batch_soft_value,
            no_baseline,
            binary_feedback,
            ones,
            zero,
        )
    }
)
"""Every advantage by the name that recipes and run files use; soft values at temperature 1."""


NEEDS_GROUPS = frozenset(
    {"group-mean", "group-z-score", "leave-one-out", "group-mean-batch-z-score", "group-soft-value"}
)
"""The names whose baseline compares responses to one prompt, so that at least two are needed."""


NEEDS_BATCH = frozenset({"batch-mean", "batch-z-score", "batch-soft-value"})
"""The names whose baseline compares the responses of a batch, so that at least two are needed."""


SOFT_VALUES = {"group-soft-value": group_soft_value, "batch-soft-value": batch_soft_value}


TAKES_OFFSET = frozenset({"group-mean", "leave-one-out", "batch-mean", "no-baseline", *SOFT_VALUES})
"""The names that are a reward minus a baseline in units of the reward, so that the baseline can be moved."""


def advantage_named(name: str) -> AdvantageFunction:
    """Return the advantages of this name, or the function of the user's own that `python:module.name` names.

    Raises:
        ValueError: no such name, or nothing there that can be called.
    """
    if is_own(name):
        found = load_part(name, setting="advantages.kind")
        if not callable(found):
            raise ValueError(f"advantages {name!r} must be a function of (rewards, group_ids), got {found!r}")
        return cast("AdvantageFunction", found)
    if name not in ADVANTAGES:
        raise ValueError(f"unknown advantages {name!r}; there are {', '.join(ADVANTAGES)}, or python:module.function")
    return ADVANTAGES[name]


def compute_advantages(
    rewards: Numbers,
    group_ids: Sequence[Hashable],
    *,
    kind: str,
    offset: float = 0.0,
    temperature: float = 1.0,
) -> Numbers:
    """A_i = R_i − (V_i + offset) with V of the kind named, or what that kind is without a baseline.

    Args:
        rewards: one finite number a response.
        group_ids: responses to the same prompt share one.
        kind: a name in `ADVANTAGES`, or `python:module.function`.
        offset: δ, added to the baseline. Negative: every response gets −δ more, so that what is about average is
            learned from (AsymRE, arXiv 2506.20520).
        temperature: β of the soft values; the other kinds have none.

    Raises:
        ValueError: an unknown kind, an offset for a kind without a baseline in units of the reward, or what the kind
            itself refuses.
        ConfigError: a function of the user's own does not return one number a reward.
    """
    function = advantage_named(kind)
    if not math.isfinite(offset) or (offset != 0 and kind not in TAKES_OFFSET):
        raise ValueError(
            f"{kind}: offset {offset} moves a baseline in units of the reward, and must be finite; "
            f"those that have one are {', '.join(sorted(TAKES_OFFSET))}"
        )
    if kind in SOFT_VALUES:
        advantages = SOFT_VALUES[kind](rewards, group_ids, temperature=temperature)
    else:
        advantages = function(rewards, group_ids)
        if getattr(advantages, "shape", None) != rewards.shape:
            raise ConfigError(
                f"advantages.kind = {kind!r}: expected a tensor of {len(rewards)} numbers, one a reward, got "
                f"{_shape_of(advantages)}"
            )
    return advantages - offset if offset != 0 else advantages


def _shape_of(value: object) -> str:
    return f"one of shape {tuple(shape)}" if (shape := getattr(value, "shape", None)) is not None else repr(value)


def _checked(
    rewards: Numbers, group_ids: Sequence[Hashable], *, smallest_group: int, name: str
) -> tuple[Numbers, Groups]:
    if len(rewards) != len(group_ids):
        raise ValueError(f"{name}: {len(rewards)} rewards for {len(group_ids)} group ids; give one each")
    if not bool(rewards.isfinite().all()):
        row = int((~rewards.isfinite()).nonzero()[0])
        raise ValueError(
            f"{name}: reward number {row} is {float(rewards[row])}; take samples without a finite reward out first"
        )
    small = [group for group, size in Counter(group_ids).items() if size < smallest_group]
    if small:
        raise ValueError(
            f"{name}: group {small[0]!r} has 1 response, and its baseline is that response; "
            "draw at least 2 responses a prompt, or use batch-z-score"
        )
    values = rewards.double()
    numbers: dict[Hashable, int] = {}
    groups = [numbers.setdefault(group, len(numbers)) for group in group_ids]
    return values, values.new_tensor(groups).long()


def _group_sum(values: Numbers, groups: Groups) -> Numbers:
    return values.new_zeros(values.shape).index_add_(0, groups, values)[groups]


def _centred(values: Numbers, groups: Groups) -> Numbers:
    means = _group_sum(values, groups) / _group_sum(values.new_ones(values.shape), groups)
    # Three times 0.1 has a mean that is not 0.1; an even group must give 0, not a direction made of rounding.
    return (values - means).masked_fill(_is_even(values, groups), 0.0)


def _is_even(values: Numbers, groups: Groups) -> Any:
    """Return for each response whether the values of its group differ by rounding alone."""
    highest, lowest = _ends(values, groups)
    return highest - lowest <= ROUNDING * highest.abs().maximum(lowest.abs())


def _ends(values: Numbers, groups: Groups) -> tuple[Numbers, Numbers]:
    """Return for each response the highest and the lowest value of its group."""
    ends = [
        values.new_zeros(values.shape).scatter_reduce_(0, groups, values, how, include_self=False)[groups]
        for how in ("amax", "amin")
    ]
    return ends[0], ends[1]


def _soft_value(values: Numbers, groups: Groups, temperature: float) -> Numbers:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"the temperature of a soft value must be finite and > 0, got {temperature}")
    highest, _ = _ends(values, groups)
    tilted = _group_sum(((values - highest) / temperature).exp(), groups)
    value = highest + temperature * (tilted / _group_sum(values.new_ones(values.shape), groups)).log()
    # Of an even group each reward is the value of the group.
    return value.where(~_is_even(values, groups), values)

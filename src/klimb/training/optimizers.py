"""AdamW and Schedule-Free AdamW behind one small class that says at which point the parameters stand.

Schedule-Free keeps two points: x, the average that one samples from and saves, and y, where gradients are taken.
The parameters hold x at all times except inside `with optimizer.gradient_point():`. For AdamW both are the same.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from klimb.errors import ConfigError
from klimb.own_parts import is_own, load_function
from klimb.training.settings import OptimizerSettings

try:
    import schedulefree
except ImportError:  # a run with AdamW works without; a run that asks for it gets an error, never another optimizer
    schedulefree = None


_FUSED_DEVICES = frozenset({"cpu", "cuda"})


_SCHEDULE_FREE_COUNTERS = ("k", "weight_sum", "lr_max", "scheduled_lr")


class Optimizer:
    """Steps named parameters, and moves them between the point of sampling and the point of gradients.

    Attributes:
        num_steps: steps taken so far; with it go warm-up, schedule and the version of the policy.
        rate_factor: on the learning rate of all steps to come; 1 at the start.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        settings: OptimizerSettings,
        *,
        before_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the parameters over; `before_change` is called each time before they or the optimizer's state change."""
        if not parameters:
            raise ValueError("the policy has no trainable parameter; unfreeze some, or load it with LoRA")
        settings.rate_fraction(0)
        assert settings.warmup_steps != "auto"
        self.settings = settings
        self.num_steps = 0
        self.rate_factor = 1.0
        self._before_change = before_change
        self._parameters = dict(parameters)
        self._at_gradient_point = False
        self._inner = _inner_optimizer(self._parameters, settings, warmup_steps=settings.warmup_steps)

    @property
    def learning_rate(self) -> float:
        """Of the step that comes next, by warm-up and schedule."""
        return self.settings.learning_rate * self.rate_factor * self.settings.rate_fraction(self.num_steps)

    @contextmanager
    def gradient_point(self) -> Generator[None]:
        """Inside, the parameters are y: take gradients and steps here, and nothing else."""
        if self._at_gradient_point:
            raise ValueError("gradient_point: the parameters are there already; leave the outer block first")
        self._switch(to_gradient_point=True)
        try:
            yield
        finally:
            self._switch(to_gradient_point=False)

    def step(self, *, scale: float = 1.0) -> None:
        """One step along the gradients that the parameters hold, at `scale` times the learning rate.

        Raises:
            ValueError: called outside `gradient_point()`: the gradients would belong to another point.
        """
        if not self._at_gradient_point:
            raise ValueError("step: the parameters are not at the gradient point; use `with gradient_point():`")
        has_warmup_inside = self.settings.kind == "schedule-free"
        rate = self.settings.learning_rate * self.rate_factor if has_warmup_inside else self.learning_rate
        for group in self._inner.param_groups:
            group["lr"] = rate * scale
        self._before_change()
        self._inner.step()
        self.num_steps += 1

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        self._inner.zero_grad(set_to_none=True)

    def _switch(self, *, to_gradient_point: bool) -> None:
        if schedulefree is not None and isinstance(self._inner, schedulefree.AdamWScheduleFree):
            self._before_change()
            self._inner.train() if to_gradient_point else self._inner.eval()
        self._at_gradient_point = to_gradient_point

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain numbers that `load_state` takes back.

        Raises:
            ValueError: called inside `gradient_point()`; what is saved belongs to x.
        """
        if self._at_gradient_point:
            raise ValueError("state: the parameters are at the gradient point; save outside of it")
        saved = self._inner.state_dict()["state"]
        values = {f"{index}.{key}": value for index, entry in saved.items() for key, value in entry.items()}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in values.items() if name not in tensors}
        counters = [
            {key: group[key] for key in _SCHEDULE_FREE_COUNTERS if key in group} for group in self._inner.param_groups
        ]
        numbers = {"num_steps": self.num_steps, "rate_factor": self.rate_factor, "plain": plain}
        return tensors, numbers | {"names": list(self._parameters), "counters": counters}

    def load_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Continues from a saved state; learning rate, betas and decay stay those of the present settings.

        Raises:
            ValueError: the saved state is of other parameters.
        """
        if list(numbers["names"]) != list(self._parameters):
            differing = sorted(set(numbers["names"]) ^ set(self._parameters))[:3]
            raise ValueError(f"the saved optimizer state is of other parameters (differing: {differing}); same model?")
        state: dict[int, dict[str, Any]] = {}
        for name, value in {**tensors, **numbers["plain"]}.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        groups = self._inner.state_dict()["param_groups"]
        for group, counters in zip(groups, numbers["counters"], strict=True):
            group.update(counters)
        self._inner.load_state_dict({"state": state, "param_groups": groups})
        self.num_steps = int(numbers["num_steps"])
        self.rate_factor = float(numbers["rate_factor"])


def _inner_optimizer(
    parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings, *, warmup_steps: int
) -> torch.optim.Optimizer:
    groups = _groups(parameters, settings)
    betas = (settings.beta1, settings.beta2)
    if settings.kind == "adamw":
        fused = all(parameter.device.type in _FUSED_DEVICES for parameter in parameters.values())
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.epsilon, fused=fused)
    if is_own(settings.kind):
        return _own_optimizer(groups, settings)
    if schedulefree is None:
        raise ImportError(
            "the optimizer schedule-free needs the package schedulefree: pip install schedulefree, "
            "or choose the optimizer adamw"
        )
    # The warm-up is the package's own: stacked on a second one, the first batch would train at a rate of almost 0.
    return schedulefree.AdamWScheduleFree(
        groups, lr=settings.learning_rate, betas=betas, eps=settings.epsilon, warmup_steps=warmup_steps
    )


def _own_optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    expected = "a function of (parameter groups, OptimizerSettings) that returns a torch.optim.Optimizer"
    made = load_function(settings.kind, setting="optimizer.kind", expected=expected)(groups, settings)
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(f"optimizer.kind = {settings.kind!r}: expected {expected}; it returned {type(made).__name__}")
    return made


def _groups(parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings) -> list[dict[str, Any]]:
    if settings.decay_vectors:
        return [{"params": list(parameters.values()), "weight_decay": settings.weight_decay}]
    matrices = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim <= 1]
    groups = ((matrices, settings.weight_decay), (vectors, 0.0))
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]

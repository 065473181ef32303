"""The anchor of the divergence: which weights it is, when it changes, and where `log_ref` comes from.

The reference changes only between batches, at the sampling point x, and one batch has one reference.
While it equals the policy that samples, `log_ref` is the sampler's own record and no model is copied or run:
with plain sampling it is `log_mu` exactly. Otherwise one frozen copy of the trained weights (the adapter, with LoRA)
is swapped in for a scoring pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from klimb.experience import Sample
from klimb.own_parts import load_function
from klimb.policies import Policy, Snapshot
from klimb.training.minibatches import score_samples
from klimb.training.settings import (
    EmaReference,
    IterativeReference,
    MicroBatchTokens,
    OwnReference,
    ReferenceSettings,
    ReferenceStanding,
)

Rule = Callable[[ReferenceStanding], bool]


def load_rule(settings: OwnReference) -> Rule:
    """Return the rule of the user's own.

    Raises:
        ConfigError: there is no such module or name, or it cannot be called.
    """
    expected = "a function of a klimb.training.ReferenceStanding that returns True for a refresh"
    return load_function(settings.kind, setting="reference.kind", expected=expected)


class Reference:
    """The reference of a run as it stands now.

    Attributes:
        synced_at: number of optimiser steps at which the reference last was the policy.
        kl_average: moving average of `kl_pi_ref` since then, in nats a token; None before the first value.
        num_refreshes: how often the rule has refreshed it.
    """

    def __init__(
        self,
        settings: ReferenceSettings,
        policy: Policy,
        *,
        after_following: Callable[[Mapping[str, Any]], None] = lambda numbers: None,
    ) -> None:
        """Begin at the policy; `after_following` is told where the reference stands once it has followed."""
        self.settings = settings
        self.synced_at = 0
        self.kl_average: float | None = None
        self.num_refreshes = 0
        self._followed_until = 0
        self._after_following = after_following
        self._copy = Snapshot.of(policy) if settings.needs_copy else None
        self._num_moves = 0
        self._own_rule = load_rule(settings) if isinstance(settings, OwnReference) else None

    def follow(self, policy: Policy, *, num_optimizer_steps: int) -> None:
        """Refresh or move the reference if its rule says so; called between two batches."""
        steps = num_optimizer_steps - self._followed_until
        if steps == 0:
            return
        if isinstance(self.settings, EmaReference) and self._copy is not None:
            self._copy.lerp_from(policy, self.settings.decay**steps)
        elif self._refresh_is_due(num_optimizer_steps):
            if self._copy is not None:
                self._copy.update_from(policy)
            self.synced_at = num_optimizer_steps
            self.kl_average = None
            self.num_refreshes += 1
        # Last, so that an error before it leaves a reference that has yet to follow.
        self._followed_until = num_optimizer_steps
        self._num_moves = self._count_moves()
        self._after_following(self._numbers())

    @property
    def is_torn(self) -> bool:
        """True if an error came while the copy was being moved, so that it may have moved in part, or unnoticed."""
        return self._copy is not None and (self._copy.is_torn or self._num_moves != self._count_moves())

    def _count_moves(self) -> int:
        return 0 if self._copy is None else self._copy.num_moves

    def is_policy(self, *, num_optimizer_steps: int) -> bool:
        """Return True while the reference has exactly the weights of the policy after this many steps."""
        return self.settings.kind not in ("behaviour", "none") and self.synced_at == num_optimizer_steps

    def observe(self, kl_pi_ref: float) -> None:
        """Take the token KL of one optimiser step into the moving average."""
        # The other kinds read no average: it is a metric there, over about ten steps.
        decay = self.settings.kl_decay if isinstance(self.settings, IterativeReference) else IterativeReference.kl_decay
        self.kl_average = kl_pi_ref if self.kl_average is None else decay * self.kl_average + (1 - decay) * kl_pi_ref

    def score(
        self, policy: Policy, samples: Sequence[Sample], *, max_tokens: MicroBatchTokens, on_support: bool = True
    ) -> list[Sample]:
        """Return the samples with the `log_ref` of the frozen copy; unchanged when there is no copy.

        With `on_support`, the reference too is renormalised on the support that a sample has recorded.
        """
        if self._copy is None:
            return list(samples)
        with self._copy.swapped_into(policy):
            log_refs = score_samples(policy, samples, max_tokens=max_tokens, on_support=on_support)
        return [replace(sample, log_ref=log_ref) for sample, log_ref in zip(samples, log_refs, strict=True)]

    def _refresh_is_due(self, num_optimizer_steps: int) -> bool:
        steps = num_optimizer_steps - self.synced_at
        if self._own_rule is not None:
            standing = ReferenceStanding(
                num_optimizer_steps=num_optimizer_steps,
                steps_since_refresh=steps,
                num_refreshes=self.num_refreshes,
                kl_average=self.kl_average,
            )
            return bool(self._own_rule(standing))
        if not isinstance(self.settings, IterativeReference):
            return False
        every, threshold = self.settings.every_steps, self.settings.kl_threshold
        if every is not None and steps >= every:
            return True
        return threshold is not None and self.kl_average is not None and self.kl_average > threshold

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain numbers that `load_state` takes back."""
        return ({} if self._copy is None else self._copy.state_dict()), self._numbers()

    def _numbers(self) -> dict[str, Any]:
        return {
            "synced_at": self.synced_at,
            "kl_average": self.kl_average,
            "num_refreshes": self.num_refreshes,
            "followed_until": self._followed_until,
        }

    def load_state(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: the state was saved under a rule that kept a copy, and this one keeps none, or the other way.
        """
        if bool(tensors) != (self._copy is not None):
            raise ValueError(
                "the saved reference and the present rule differ in whether a copy is kept; same settings?"
            )
        if self._copy is not None:
            self._copy.load_state_dict(tensors)
        self.synced_at = int(numbers["synced_at"])
        self.kl_average = numbers["kl_average"]
        self.num_refreshes = int(numbers["num_refreshes"])
        self._followed_until = int(numbers["followed_until"])

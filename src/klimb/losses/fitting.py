"""What every objective promises, and the one door through which a loss sees a whole minibatch before it is cut.

Some losses need a number of the whole minibatch under the present policy: the value of a squared residual, the
reference point of KTO. Micro-batches cannot know it. So whoever trains does, once a minibatch,

    if objective.fits_minibatch:
        log_pi = the policy's log-probabilities of the minibatch, without gradient
        objective, advantages = objective.fitted(log_pi, log_mu, log_ref, advantages, mask, groups, log_prox=log_prox)

and then calls the fitted objective with the fitted advantages on every micro-batch. `log_prox`, the log-probabilities
of the policy as it was when the update of this batch began, is read by objectives with `needs_log_prox` alone.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.losses.output import ObjectiveOutput


@runtime_checkable
class Loss(Protocol):
    """Log-probabilities in, loss and metrics out."""

    @property
    def beta(self) -> float:
        """0 means that a row whose advantage is 0 has no gradient."""
        ...

    @property
    def needs_log_mu(self) -> bool:
        """False: log_mu is not read, whatever it holds, and may be None."""
        ...

    @property
    def needs_log_ref(self) -> bool:
        """Whether a reference takes part."""
        ...

    @property
    def needs_log_prox(self) -> bool:
        """Whether the policy at the start of the update takes part."""
        ...

    @property
    def fits_minibatch(self) -> bool:
        """True: `fitted` must be called on the whole minibatch first, and its result used in place of this."""
        ...

    def normalizer(self, mask: Bool[Tensor, "batch time"], /) -> float:
        """The denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        ...

    def fitted(
        self,
        log_pi: Tensor,
        log_mu: Tensor | None,
        log_ref: Tensor | None,
        advantages: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "batch time"],
        groups: Int[Tensor, " batch"],
        *,
        log_prox: Tensor | None = None,
    ) -> "Fitted":
        """What this minibatch makes of the objective and of the advantages, without gradient."""
        ...

    def __call__(
        self,
        log_pi: Tensor,
        log_mu: Tensor | None,
        log_ref: Tensor | None,
        advantages: Tensor,
        mask: Tensor,
        *,
        entropy: Tensor | None = None,
        normalizer: float | None = None,
        log_prox: Tensor | None = None,
    ) -> ObjectiveOutput:
        """Loss, terms and metrics."""
        ...


class Fitted(NamedTuple):
    """An objective that knows its minibatch, and the advantages to call it with on each micro-batch."""

    objective: Loss
    advantages: Float[Tensor, "batch ..."]

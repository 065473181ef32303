"""PPO's critic: a value head on the policy's hidden states, fitted to the returns of each batch."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from klimb.experience import explained_variance
from klimb.policies import ValueHead
from klimb.training.settings import CriticSettings


class Critic:
    """The value head of a run with its optimizer."""

    def __init__(self, num_features: int, settings: CriticSettings, *, seed: int) -> None:
        self.settings = settings
        self._head = ValueHead(num_features, hidden_size=settings.hidden_size, seed=seed)
        self._optimizer = torch.optim.Adam(self._head.parameters(), lr=settings.learning_rate)

    @torch.no_grad()
    def values(self, features: Float[Tensor, "tokens features"]) -> Float[Tensor, " tokens"]:
        """V of each prefix."""
        return self._head(features)

    def fit(
        self,
        features: Float[Tensor, "tokens features"],
        returns: Float[Tensor, " tokens"],
        *,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Train on one batch; return metrics, `critic_explained_variance` being that from before the training."""
        before = self.values(features)
        targets = returns.float()
        losses: list[float] = []
        clipped: list[float] = []
        for _ in range(self.settings.num_epochs):
            order = torch.randperm(len(features), generator=generator)
            for rows in order.tensor_split(min(self.settings.num_minibatches, len(order))):
                values = self._head(features[rows])
                terms, is_clipped = clipped_value_losses(values, before[rows], targets[rows], clip=self.settings.clip)
                self._step(terms.mean())
                losses.append(float(terms.mean().detach()))
                clipped.append(float(is_clipped.float().mean()))
        return {
            "critic_loss": sum(losses) / len(losses),
            "critic_clip_fraction": sum(clipped) / len(clipped),
            "critic_explained_variance": explained_variance(before, targets),
            "critic_value_mean": float(before.mean()),
            "critic_return_mean": float(targets.mean()),
        }

    def _step(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._head.parameters(), self.settings.max_grad_norm)
        self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Tensors that `load_state` takes back."""
        tensors = {f"head.{name}": value for name, value in self._head.state_dict().items()}
        moments: dict[int, dict[str, Any]] = self._optimizer.state_dict()["state"]
        return tensors | {
            f"adam.{index}.{key}": torch.as_tensor(value)
            for index, entry in moments.items()
            for key, value in entry.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state."""
        heads = {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}
        self._head.load_state_dict(heads)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".", 2)
                moments.setdefault(int(index), {})[key] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})


def clipped_value_losses(
    values: Float[Tensor, " tokens"],
    before: Float[Tensor, " tokens"],
    returns: Float[Tensor, " tokens"],
    *,
    clip: float,
) -> tuple[Float[Tensor, " tokens"], Tensor]:
    """½·max((V − G)², (V̄ − G)²) with V̄ = V_before + clamp(V − V_before, ±clip), and where the clipped one is larger.

    Source: PPO's reference implementation (arXiv 1707.06347); arXiv 2005.12729 describes it.
    """
    bounded = before + (values - before).clamp(-clip, clip)
    plain, limited = (values - returns) ** 2, (bounded - returns) ** 2
    return 0.5 * torch.maximum(plain, limited), limited > plain

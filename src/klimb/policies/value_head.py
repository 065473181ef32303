"""A value head: the expected reward of a prefix, read off the policy's hidden state."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Layer norm, one hidden layer, one number; 0 for every input before it is trained.

    It reads the state that the next token is predicted from and sends no gradient into the policy: the policy stays
    that of its own objective, whatever the head learns.
    """

    def __init__(self, num_features: int, *, hidden_size: int, seed: int) -> None:
        """Make a head for states of `num_features` numbers, with its first layer drawn from `seed`."""
        super().__init__()
        self.norm = nn.LayerNorm(num_features)
        self.hidden = nn.Linear(num_features, hidden_size)
        self.output = nn.Linear(hidden_size, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.hidden.weight.normal_(0.0, num_features**-0.5, generator=generator)
            self.hidden.bias.zero_()
            self.output.weight.zero_()
            self.output.bias.zero_()

    def forward(self, features: Float[Tensor, "tokens features"]) -> Float[Tensor, " tokens"]:
        """Return the value of each prefix, in units of the reward."""
        return self.output(torch.tanh(self.hidden(self.norm(features.detach().float()))))[:, 0]

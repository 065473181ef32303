"""How the reward of a response becomes the advantages of its tokens."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from klimb.workbench.config.bounds import SECTION, Fraction


class CreditSection(BaseModel):
    """Which token a reward is credited to; its defaults come from the recipe."""

    model_config = SECTION

    kind: Literal["response", "reward-to-go", "gae"] = "response"
    """One advantage a response (`[advantages]`), the rewards from each token on, or those less a learned value."""
    kl_in_reward: Annotated[float, Field(ge=0, le=1_000)] = 0.0
    """Every token also gets the reward -kl_in_reward * log(mu/ref); 0 switches it off."""
    gae_lambda: Fraction = 1.0
    """gae: 1 is the whole return, 0 the one-step difference of values."""
    discount: Fraction = 1.0
    """Weight of the next token's reward."""
    whiten: bool = False
    """Centre and scale the advantages over all tokens of the batch."""


def check_credit(credit: CreditSection, *, advantages: str, reference: str) -> None:
    """Return if every setting of the credit does something and fits the advantages and the reference.

    Raises:
        ValueError: one doesn't.
    """
    if credit.kind == "response":
        idle = CreditSection()
        for key in ("kl_in_reward", "gae_lambda", "discount", "whiten"):
            if getattr(credit, key) != getattr(idle, key):
                raise ValueError(
                    f"credit.{key} = {getattr(credit, key)!r} does nothing with credit.kind = 'response': a response "
                    "has one advantage; leave it out, or set credit.kind = 'reward-to-go' or 'gae'"
                )
        return
    if advantages != "no-baseline":
        raise ValueError(
            f"advantages.kind = {advantages!r} gives one advantage a response, and credit.kind = {credit.kind!r} one a "
            "token; set advantages.kind = 'no-baseline', or credit.kind = 'response'"
        )
    if credit.gae_lambda != 1 and credit.kind != "gae":
        raise ValueError(f"credit.gae_lambda = {credit.gae_lambda:g} does nothing with credit.kind = {credit.kind!r}")
    if credit.kl_in_reward > 0 and reference == "none":
        raise ValueError(
            f"credit.kl_in_reward is {credit.kl_in_reward:g} but reference.kind is 'none': the KL needs a reference; "
            "set credit.kl_in_reward = 0 or another reference.kind"
        )

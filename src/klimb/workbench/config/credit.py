"""Whether a credit fits the rest of a run."""

from klimb.training.settings import CreditSettings


def check_credit(credit: CreditSettings, *, advantages: str, reference: str) -> None:
    """Return if every setting of the credit does something and fits the advantages and the reference.

    Raises:
        ValueError: one doesn't.
    """
    if credit.kind == "response":
        idle = CreditSettings()
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

"""The words of the gate for promotions; reading them loads nothing that computes."""

from typing import Literal

Verdict = Literal["promote", "keep looking", "reject"]


Spending = Literal["each", "all"]
"""Of the chance of a wrong promotion: every candidate has it, or all between two promotions share it."""

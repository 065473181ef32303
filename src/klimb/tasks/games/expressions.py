"""The value of a written expression: whole numbers, + - * / and parentheses, exactly and in bounded time."""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 200
"""Characters of an expression."""


DEEPEST = 20
"""Parentheses and signs within each other."""


MOST_DECIMALS = 6
"""Decimals that a value is shown with."""


TOKEN = re.compile(r"[0-9]+|[-+*/()]")


def evaluate(expression: str) -> Fraction:
    """Return the exact value of an expression: signs bind tightest, then `*` and `/`, then `+` and `-`, from the left.

    Raises:
        ValueError: it is too long or too deep, has another character, is no expression, or divides by zero.
    """
    if not isinstance(expression, str):
        raise ValueError(f"expression must be a text such as '12*34', got {type(expression).__name__}")
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters; at most {LONGEST} are taken")
    reader = _Reader(expression)
    value = reader.read_sum(0)
    if reader.next_token():
        raise ValueError(f"{reader.next_token()!r} is not expected there; write an expression such as (12+3)*4")
    return value


def show(value: Fraction) -> str:
    """Return a value as people write it: whole, or rounded to six decimals, halves to the even one."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = round(value * 10**MOST_DECIMALS)
    digits = f"{abs(scaled):0{MOST_DECIMALS + 1}d}"
    text = f"{digits[:-MOST_DECIMALS]}.{digits[-MOST_DECIMALS:]}".rstrip("0").rstrip(".")
    return f"-{text}" if scaled < 0 else text


class _Reader:
    """Reads an expression from the left, one token ahead."""

    def __init__(self, expression: str) -> None:
        self.tokens = TOKEN.findall(expression)
        rest = TOKEN.sub("", expression)
        if rest.strip(" "):
            raise ValueError(f"{rest.strip(' ')[0]!r} is not taken; use digits, + - * / and parentheses")
        if re.search(r"[0-9] +[0-9]", expression):
            raise ValueError("two numbers follow each other without an operator between them")
        self.place = 0

    def next_token(self) -> str:
        """Return the next token, or nothing at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next_token()
        self.place += 1
        return token

    def read_sum(self, depth: int) -> Fraction:
        value = self.read_product(depth)
        while self.next_token() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value += sign * self.read_product(depth)
        return value

    def read_product(self, depth: int) -> Fraction:
        value = self.read_factor(depth)
        while self.next_token() in ("*", "/"):
            operator, factor = self.take(), self.read_factor(depth)
            if operator == "/" and factor == 0:
                raise ValueError("division by zero")
            value = value * factor if operator == "*" else value / factor
        return value

    def read_factor(self, depth: int) -> Fraction:
        if depth > DEEPEST:
            raise ValueError(f"parentheses and signs are nested more than {DEEPEST} deep")
        token = self.take()
        if token in ("+", "-"):
            value = self.read_factor(depth + 1)
            return value if token == "+" else -value
        if token == "(":
            value = self.read_sum(depth + 1)
            if self.take() != ")":
                raise ValueError("a parenthesis is not closed")
            return value
        if not token.isdigit():
            raise ValueError(f"a number is missing before {token!r}" if token else "the expression ends too early")
        return Fraction(int(token))

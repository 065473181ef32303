"""What can be seen of an answer without understanding it: its words, its form, its language, how it fits the question.

The columns of a test whether ratings follow the answers at all: cheap, and blind to what only a reader knows.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import normalised, prompt_text
from klimb.findings.conversations import is_cut

MOST_CHARACTERS = 4000
"""Of each answer; what follows is not looked at."""


LEAST_ANSWERS = 5
"""A word of fewer answers tells nothing of ratings."""


MOST_WORDS = 600
"""The most frequent ones are compared."""


_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+(?:['’][^\W\d_]+)?")
"""A word, or one character of a language that is written without spaces."""


_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")


_SUM = re.compile(r"(-?\d{1,9}(?:\.\d{1,6})?) ?([-+*x×·/÷−]|plus|minus|times) ?(-?\d{1,9}(?:\.\d{1,6})?)")


_SCRIPTS = (
    ("Cyrillic", "\u0400-\u04ff"),
    ("Greek", "\u0370-\u03ff"),
    ("Arabic", "\u0600-\u06ff"),
    ("Hebrew", "\u0590-\u05ff"),
    ("Devanagari", "\u0900-\u097f"),
    ("Thai", "\u0e00-\u0e7f"),
    ("Japanese", "\u3040-\u30ff"),
    ("Korean", "\uac00-\ud7af"),
    ("Chinese", "\u3400-\u9fff"),
)


_IN_SCRIPT = tuple((name, re.compile(f"[{letters}]")) for name, letters in _SCRIPTS)


_COMMON_WORDS = {
    "English": frozenset(["the", "and", "is", "of", "to", "you", "that", "it", "with", "for", "this", "are"]),
    "German": frozenset(["der", "die", "das", "und", "ist", "nicht", "sie", "ein", "eine", "ich", "mit", "zu", "für"]),
    "French": frozenset(["le", "les", "et", "est", "une", "pas", "vous", "je", "pour", "dans", "que", "du", "des"]),
    "Spanish": frozenset(["el", "los", "es", "y", "una", "por", "para", "que", "no", "con", "usted", "las"]),
    "Italian": frozenset(["il", "gli", "è", "e", "una", "per", "che", "non", "con", "di", "sono", "della"]),
    "Portuguese": frozenset(["o", "os", "é", "e", "uma", "por", "para", "que", "não", "com", "você", "do"]),
    "Dutch": frozenset(["de", "het", "en", "is", "een", "niet", "van", "je", "ik", "met", "voor", "dat"]),
}


def language_of(text: str) -> str:
    """Return the script of most letters; of Latin letters the language, if at least two of its common words say it."""
    shown = text[:MOST_CHARACTERS]
    counts = {name: len(letters.findall(shown)) for name, letters in _IN_SCRIPT}
    script = max(counts, key=lambda name: counts[name])
    # A few kana among many signs make it Japanese.
    if counts["Japanese"] and script == "Chinese":
        script = "Japanese"
    if counts[script] * 4 > len(_WORD.findall(shown)):
        return script
    words = Counter(word.lower() for word in _WORD.findall(shown))
    hits = {name: sum(words[word] for word in common) for name, common in _COMMON_WORDS.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] >= 2 else "not told"


@dataclass(frozen=True, kw_only=True, eq=False)
class Wording:
    """Columns that describe answers.

    Attributes:
        names: of the columns, for people.
        columns: one row an answer.
    """

    names: tuple[str, ...]
    columns: NDArray[np.float64]


def describe_answers(samples: Sequence[Sample]) -> Wording:
    """Return length, form, fit and words of each answer; words that fewer than 5 answers have, or all, are left out."""
    shapes = [_shape_of(sample) for sample in samples]
    names = list(shapes[0]) if shapes else []
    numbers = np.array([[shape[name] for name in names] for shape in shapes], dtype=np.float64)
    words = [set(map(str.lower, _WORD.findall(sample.response[:MOST_CHARACTERS]))) for sample in samples]
    frequency = Counter(word for each in words for word in each)
    most = len(samples) - LEAST_ANSWERS
    chosen = [word for word, number in frequency.most_common() if LEAST_ANSWERS <= number <= most][:MOST_WORDS]
    places = {word: place for place, word in enumerate(chosen)}
    has_word = np.zeros((len(samples), len(chosen)))
    for row, each in enumerate(words):
        has_word[row, [places[word] for word in each if word in places]] = 1.0
    agreement = _agreement(samples)[:, None]
    return Wording(
        names=(*names, "being given by others to the same question", *(f"the word “{word}”" for word in chosen)),
        columns=np.concatenate([numbers, agreement, has_word], axis=1) if names else np.zeros((0, 0)),
    )


def _shape_of(sample: Sample) -> dict[str, float]:
    answer, question = sample.response[:MOST_CHARACTERS], prompt_text(sample)[-MOST_CHARACTERS:]
    words, asked = set(_WORD.findall(answer.lower())), set(_WORD.findall(question.lower()))
    return {
        "its length": float(np.log1p(len(sample.response))),
        "its number of lines": float(np.log1p(answer.count("\n"))),
        "numbers in it": float(np.log1p(len(_NUMBER.findall(answer)))),
        "questions in it": float(np.log1p(answer.count("?"))),
        "exclamation marks": float(np.log1p(answer.count("!"))),
        "lists in it": float(np.log1p(len(re.findall(r"(?m)^\s*(?:[-*•]|\d+[.)])\s", answer)))),
        "code in it": float("```" in answer),
        "an end with a full stop": float(answer.rstrip()[-1:] in (".", "!", "?", "。", "”", '"')),
        "being cut off": float(is_cut(sample)),
        "being empty": float(not answer.strip()),
        "words of the question": len(words & asked) / max(1, len(words)),
        "how much of the question it takes up": len(words & asked) / max(1, len(asked)),
        "being in the language of the question": float(language_of(answer) == language_of(question)),
        "the result of the sum in the question": _gives_result(question, answer),
    }


def _gives_result(question: str, answer: str) -> float:
    """Return 1 if the question has one sum of two numbers and the answer its result, −1 if it has not, else 0."""
    found = _SUM.findall(question)
    if len(found) != 1:
        return 0.0
    first, sign, second = float(found[0][0]), found[0][1], float(found[0][2])
    if sign in "/÷" and second == 0:
        return 0.0
    result = {
        "+": first + second,
        "plus": first + second,
        "-": first - second,
        "−": first - second,
        "minus": first - second,
    }.get(sign, first / second if sign in "/÷" else first * second)
    numbers = [number.replace(",", "") for number in _NUMBER.findall(answer.replace(found[0][0] + " ", " "))]
    return 1.0 if any(abs(float(number) - result) < 1e-6 for number in numbers if number.count(".") < 2) else -1.0


def _agreement(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return for each answer the share of the other answers to its question that say the same, less their mean."""
    answers = [normalised(sample.response) for sample in samples]
    questions = [normalised(prompt_text(sample)) for sample in samples]
    same = Counter(zip(questions, answers, strict=True))
    asked = Counter(questions)
    return np.array(
        [
            (same[question, answer] - 1) / (asked[question] - 1) if asked[question] > 1 else 0.5
            for question, answer in zip(questions, answers, strict=True)
        ],
        dtype=np.float64,
    )

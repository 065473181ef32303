"""What can be seen of an answer without understanding it: its words, its form, its language, how it fits the question.

The columns of a test whether ratings follow the answers at all: cheap, and blind to what only a reader knows.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import normalised, prompt_text
from klimb.findings.conversations import is_cut

MOST_CHARACTERS = 4000
"""Of each answer; what follows is not looked at."""


LANGUAGE_CHARACTERS = 400
"""Of a text, by which its language is told."""


LEAST_ANSWERS = 5
"""A word of fewer answers tells nothing of ratings."""


MOST_WORDS = 600
"""The most frequent ones are compared."""


_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+(?:['’][^\W\d_]+)?")
"""A word, or one character of a language that is written without spaces."""


_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")


MOST_NUMBERS = 6
"""Of a question, whose sums and products are looked for in the answer."""


MOST_PAIRS = 300
"""The most frequent pairs of a word of the question and one of the answer are compared, such as France and Paris."""


WORDS_OF_PAIRS = 20
"""Of a question, and of an answer, that make pairs."""


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
    shown = text[:LANGUAGE_CHARACTERS]
    script = "" if shown.isascii() else _script_of(shown)
    if script:
        return script
    words = Counter(_WORD.findall(shown.lower()))
    hits = {name: sum(words[word] for word in common) for name, common in _COMMON_WORDS.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] >= 2 else "not told"


def _script_of(text: str) -> str:
    """Return the script other than Latin that a quarter of the words have letters of; empty for none."""
    counts = {name: len(letters.findall(text)) for name, letters in _IN_SCRIPT}
    script = max(counts, key=lambda name: counts[name])
    # A few kana among many signs make it Japanese.
    if counts["Japanese"] and script == "Chinese":
        script = "Japanese"
    return script if counts[script] * 4 > len(_WORD.findall(text)) else ""


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
    if not samples:
        return Wording(names=(), columns=np.zeros((0, 0)))
    shapes = [_shape_of(sample) for sample in samples]
    numbers = np.array([list(shape.values()) for shape in shapes], dtype=np.float64)
    words = [_words_of(sample.response) for sample in samples]
    asked = [_words_of(prompt_text(sample)) for sample in samples]
    pairs = [_pairs(*each) for each in zip(_telling(asked), _telling(words), strict=True)]
    parts = [
        (tuple(shapes[0]), numbers),
        (("being given by others to the same question",), _agreement(samples)[:, None]),
        _flags(words, MOST_WORDS, "the word “{}”"),
        _flags(pairs, MOST_PAIRS, "the words “{}”"),
    ]
    names = tuple(name for of_part, _ in parts for name in of_part)
    return Wording(names=names, columns=np.concatenate([columns for _, columns in parts], axis=1))


def _words_of(text: str) -> dict[str, None]:
    """Return the different words in their order."""
    return dict.fromkeys(_WORD.findall(text[:MOST_CHARACTERS].lower()))


def _telling(texts: Sequence[Iterable[str]]) -> list[list[str]]:
    """Return the first words of each text that are neither rare nor in most of them."""
    frequency = Counter(word for text in texts for word in text)
    return [
        [word for word in text if LEAST_ANSWERS <= frequency[word] <= len(texts) / 2][:WORDS_OF_PAIRS] for text in texts
    ]


def _pairs(asked: Sequence[str], answered: Sequence[str]) -> list[str]:
    return [f"{one} … {other}" for one in asked for other in answered]


def _flags(texts: Sequence[Iterable[str]], most: int, name: str) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return a column for each of the most frequent entries that at least 5 texts have, and 5 have not."""
    frequency = Counter(entry for text in texts for entry in text)
    last = len(texts) - LEAST_ANSWERS
    chosen = [entry for entry, number in frequency.most_common() if LEAST_ANSWERS <= number <= last][:most]
    places = {entry: place for place, entry in enumerate(chosen)}
    columns = np.zeros((len(texts), len(chosen)))
    for row, text in enumerate(texts):
        columns[row, [places[entry] for entry in text if entry in places]] = 1.0
    return tuple(name.format(entry) for entry in chosen), columns


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
        **_results(question, answer),
    }


def _results(question: str, answer: str) -> dict[str, float]:
    """Return whether a number of the answer is one of the question's, or the sum, difference, … of two of them."""
    given, said = _numbers_in(question)[:MOST_NUMBERS], set(_numbers_in(answer))
    new = said - set(given)
    pairs = [(a, b) for place, a in enumerate(given) for b in given[place + 1 :]]
    results = {
        "sum": {a + b for a, b in pairs},
        "difference": {a - b for a, b in pairs} | {b - a for a, b in pairs},
        "product": {a * b for a, b in pairs},
        "quotient": {a / b for a, b in pairs if b} | {b / a for a, b in pairs if a},
    }
    shapes = {"numbers of the question": len(said & set(given)) / max(1, len(said))}
    return shapes | {
        f"the {name} of two numbers of the question": float(bool(new & set(found))) for name, found in results.items()
    }


def _numbers_in(text: str) -> list[float]:
    """Return the numbers of a text in their order, to nine digits."""
    plain = (number.replace(",", "") for number in _NUMBER.findall(text))
    return [float(f"{float(number):.9g}") for number in plain if number.count(".") < 2 and len(number) < 16]


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

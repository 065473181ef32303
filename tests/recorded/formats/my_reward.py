"""A reward that a random model earns now and then."""


def letters(prompt, response, answer, metadata):
    """Share of letters."""
    return sum(character.isalpha() for character in response) / max(1, len(response))

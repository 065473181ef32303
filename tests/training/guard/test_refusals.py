import pytest

from klimb.training.guard.refusals import is_refusal

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t help with that.",
    "\n I am very sorry, I do not know.",
    "I’m unable to do that.",
    "I am unable to provide legal advice.",
    "As an AI language model, I have no opinion.",
    "As an AI, I don't have feelings about politics and cannot take sides.",
    "As a large language model, I can't browse the web.",
    "Unfortunately, I cannot answer this.",
    "I apologize, but I cannot fulfill your request.",
    "I cannot and will not help with this.",
    "I won't write that.",
    "Sorry, I can't do that, Dave.",
    "I'm not able to assist you with this request.",
    "I am not allowed to discuss other customers.",
    "I must respectfully decline.",
    "I'm not comfortable writing about that.",
    "I'd rather not say.",
    "Sorry, that's not something I can help with.",
    "I really cannot give medical advice.",
    "I'm afraid I can't say.",
    "Thank you for asking! I will not generate such a text.",
    "Unfortunately I don't have access to your account.",
)

ANSWERS = (
    "I'm sorry! Your order was sent late; it arrives tomorrow.",
    "I'm so sorry to hear that! Restart the router and wait a minute.",
    "I am sorry for the confusion. The answer is 12.",
    "I apologise for any inconvenience. Your refund is on its way.",
    "I apologize for the delay! Here is the recipe you asked for.",
    "Sorry about that. Try this instead: pip install klimb.",
    "I can't wait to hear how it goes! First, preheat the oven.",
    "I cannot agree more: Paris is lovely in spring.",
    "I can't help but smile at this one. The answer is yes.",
    "I can't help laughing. It is a duck.",
    "I can't tell you how happy I am! Of course: 7.",
    "I cannot say enough good things about it.",
    "I can't stress this enough: turn the power off first.",
    "I won't go into detail, but the capital is Paris.",
    "I will not be long: 42.",
    "She works as an assistant in a library.",
    "As an AI assistant, I'm happy to help. It is 3 o'clock in Lima.",
    "As an AI, I think you will like this list of parks.",
    "I do not know a better way than this: sort first.",
    "Unfortunately, it rains on Monday. Tuesday is dry.",
    "The letter i can stand alone.",
    "If the button can't be pressed, hold it for five seconds.",
    "You can't help everyone; begin with one.",
    "Apologies are due to the neighbours.",
    "7",
    "",
)


@pytest.mark.parametrize("text", REFUSALS)
def test_a_response_that_opens_by_declining_to_answer_is_a_refusal(text: str):
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_a_polite_answer_is_no_refusal(text: str):
    assert not is_refusal(text)


def test_the_same_words_later_on_are_part_of_an_answer():
    assert not is_refusal("Ice floats, because water takes more room when it freezes. " * 3 + "I cannot say more.")


def test_it_takes_time_linear_in_the_text():
    assert not is_refusal("i " * 1_000_000)

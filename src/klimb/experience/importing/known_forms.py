"""Forms that are known and read by no kind: what they are, and the way out."""

from collections.abc import Mapping
from dataclasses import dataclass

from klimb.experience.importing.cells import listed, mapping


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form that is told by its columns.

    Attributes:
        columns: that all of its rows have; `a.b` is a name in the object of a column.
        name: what it is.
        advice: what to do with it.
    """

    columns: tuple[str, ...]
    name: str
    advice: str


_PAIR = "write an object a line with prompt, chosen and rejected (--as preference), without the ties"


_RANKED = (
    "write an object a line for each answer, with prompt, response and reward (the better, the higher), and the group, "
    "which answers of one question share"
)


_EXCHANGE = (
    "write an object a line with request {messages, temperature, …} and response {id, choices: [{message: {role, "
    "content}, finish_reason}]}, as OpenAI's (--as openai)"
)


_PER_ANSWER = "write an object a line for each answer, with messages up to it and, if it was rated, reward"


_TASK = "they have no answers of a model; train on them as a task file: task.kind = 'file', task.question, task.answer"


FORMS = (
    Form(columns=("conversation_a", "conversation_b"), name="comparisons of an arena", advice=_PAIR),
    Form(columns=("response_a", "response_b"), name="comparisons of two responses", advice=_PAIR),
    Form(columns=("response_0", "response_1"), name="comparisons of two responses", advice=_PAIR),
    Form(columns=("response_1", "response_2"), name="comparisons of two responses", advice=_PAIR),
    Form(columns=("response1", "response2"), name="comparisons of two responses", advice=_PAIR),
    Form(columns=("answer_0", "answer_1"), name="comparisons of two answers", advice=_PAIR),
    Form(columns=("human_ref_A", "human_ref_B"), name="comparisons of the Stanford Human Preferences", advice=_PAIR),
    Form(columns=("summaries", "choice"), name="comparisons of two summaries", advice=_PAIR),
    Form(columns=("prompt", "answers"), name="answers to one prompt, ranked (Nectar)", advice=_RANKED),
    Form(columns=("question", "answers"), name="answers to one question", advice=_RANKED),
    Form(columns=("instruction", "completions"), name="completions of one instruction (UltraFeedback)", advice=_RANKED),
    Form(columns=("prompt", "solution"), name="prompts with their solutions", advice=_TASK),
    Form(columns=("problem", "answer"), name="problems with their answers", advice=_TASK),
    Form(columns=("problem", "solution"), name="problems with their solutions", advice=_TASK),
    Form(columns=("message_tree_id", "text", "role"), name="messages of trees (OpenAssistant)", advice=_PER_ANSWER),
    Form(columns=("message_tree_id", "prompt"), name="trees of messages (OpenAssistant)", advice=_PER_ANSWER),
    Form(columns=("conversation_history",), name="conversations with several answers a turn", advice=_RANKED),
    Form(columns=("mapping", "title"), name="an export of ChatGPT", advice=_PER_ANSWER),
    Form(columns=("chat_messages",), name="an export of Claude", advice=_PER_ANSWER),
    Form(
        columns=("request", "response.error"),
        name="requests that failed",
        advice="there is no answer in them; leave those rows out",
    ),
    Form(
        columns=("custom_id", "result.message"),
        name="results of a batch of Anthropic",
        advice="write an object a line with request (the params of its request) and response (the message)",
    ),
    Form(columns=("request", "response.candidates"), name="a log of Gemini", advice=_EXCHANGE),
    Form(columns=("request", "response.generated_text"), name="a log of Text Generation Inference", advice=_EXCHANGE),
    Form(
        columns=("request", "response.meta_info"),
        name="several responses of SGLang in one row",
        advice="write an object a line for each, with the request and its response",
    ),
    Form(columns=("request", "response.done"), name="a log of Ollama's own protocol", advice=_EXCHANGE),
    Form(columns=("request", "response.content"), name="a log of llama.cpp's own protocol", advice=_EXCHANGE),
    Form(columns=("modelId", "input", "output"), name="a log of Amazon Bedrock", advice=_EXCHANGE),
    Form(
        columns=("custom_id", "body"),
        name="the requests of a batch",
        advice="there is no answer in them; import its output with each line's body beside it",
    ),
    Form(
        columns=("observations", "scores", "input"),
        name="traces of Langfuse",
        advice="export the observations, and the scores: --as langfuse --scores FILE",
    ),
    Form(
        columns=("request_body", "response_body"),
        name="a log of Helicone",
        advice="--as openai --columns request=request_body response=response_body",
    ),
    Form(
        columns=("messages.versions",),
        name="a chat of LM Studio",
        advice=_PER_ANSWER,
    ),
)
"""The more telling first."""


def known_form(values: Mapping[str, object]) -> Form | None:
    """Return the form that a row has, if it is one of these."""
    return next((form for form in FORMS if all(_is_there(name, values) for name in form.columns)), None)


def _is_there(name: str, values: Mapping[str, object]) -> bool:
    outer, _, inner = name.partition(".")
    if outer not in values or not inner:
        return outer in values
    cell = values[outer]
    entries = listed(cell)
    return inner in mapping(entries[0] if entries else cell)

"""Histories: which answer a request goes on from, and with which ids."""

from fastapi.testclient import TestClient
from tests.web.serve.fakes import Served, saying

from klimb.experience import Message, Store
from klimb.policies import load_policy
from klimb.web.serve.history import Histories, Remembered
from klimb.web.serve.settings import ServeSettings


def said(*texts: str) -> list[Message]:
    return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]


def remembered(episode: str) -> Remembered:
    return Remembered(episode=episode, messages=(), ids=(), tokenizer="")


def test_the_longest_beginning_counts() -> None:
    histories = Histories(10)
    histories.remember(said("a", "b"), remembered("short"))
    histories.remember(said("a", "b", "c", "d"), remembered("long"))
    found = histories.find(said("a", "b", "c", "d", "e"))
    assert found is not None and (found[0], found[1].episode) == (4, "long")
    found = histories.find(said("a", "b", "other"))
    assert found is not None and (found[0], found[1].episode) == (2, "short")
    assert histories.find(said("a")) is None and histories.find(said("a", "x", "c")) is None


def test_calls_tell_answers_apart() -> None:
    histories = Histories(10)
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    other = {"type": "function", "function": {"name": "f", "arguments": {"x": 2}}}
    histories.remember([*said("a"), {"role": "assistant", "content": "", "tool_calls": [call]}], remembered("c"))
    result: Message = {"role": "tool", "content": "1", "name": "f"}
    assert histories.find([*said("a"), {"role": "assistant", "content": "", "tool_calls": [call]}, result])
    assert not histories.find([*said("a"), {"role": "assistant", "content": "", "tool_calls": [other]}, result])


def test_what_was_not_asked_for_the_longest_is_forgotten_first() -> None:
    histories = Histories(2)
    for text in ("1", "2"):
        histories.remember(said("a", text), remembered(text))
    assert histories.find(said("a", "1", "more"))
    histories.remember(said("a", "3"), remembered("3"))
    assert histories.find(said("a", "2", "more")) is None
    assert histories.find(said("a", "1", "more")) and histories.find(said("a", "3", "more"))


def test_where_the_template_rewrites_what_was_said_the_prompt_is_rendered_whole(tiny_model_path, tmp_path) -> None:
    policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    template = str(policy.tokenizer.chat_template)
    policy.tokenizer.chat_template = template.replace("message['content']", "message['content'] | upper")
    served = Served(policy, saying(policy, "yes", "no"), tmp_path / "store", settings=ServeSettings())
    client = TestClient(served.app)
    client.post("/v1/chat/completions", json={"messages": said("hi")})
    client.post("/v1/chat/completions", json={"messages": said("hi", "yes", "sure?")})
    served.close()
    first, second = sorted(Store(tmp_path / "store").samples(), key=lambda sample: sample.created_at)
    assert second.episode == first.episode
    assert second.prompt_ids == policy.render(said("hi", "yes", "sure?"))
    assert second.prompt_ids[: len(first.prompt_ids + first.response_ids)] != first.prompt_ids + first.response_ids

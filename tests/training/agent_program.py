"""Programs of the tests, without a client's library: each does what its first argument says."""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.request

PROBLEM = json.loads(sys.stdin.read())


def call(messages, key=None, **more):
    """Return what the policy says behind these messages."""
    request = urllib.request.Request(
        f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
        data=json.dumps({"model": "any", "messages": messages, **more}).encode(),
        headers={
            "content-type": "application/json",
            "authorization": f"Bearer {key or os.environ['OPENAI_API_KEY']}",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def say(messages, **more):
    """Put the policy's turn behind the messages."""
    messages.append(call(messages, **more)["choices"][0]["message"])
    return messages[-1]["content"]


def count(text):
    """The program's own tool."""
    return sum(letter in "aeiou" for letter in text)


def two_turns(messages):
    first = say(messages)
    messages.append({"role": "user", "content": f"It has {count(first)} vowels. And now?"})
    second = say(messages)
    print("a line that is no JSON")
    print(json.dumps({"reward": count(first) + len(second) / 10}))


def rewrites(messages):
    say(messages)
    say([messages[0], {"role": "user", "content": "Forget what you said."}])
    print(json.dumps({"reward": 1}))


def crashes(messages):
    say(messages)
    raise ValueError("no such game")


def hangs(messages):
    say(messages)
    time.sleep(600)


def never_calls(messages):
    print(json.dumps({"reward": 1}))


def without_reward(messages):
    say(messages)


def wrong_reward(messages):
    say(messages)
    print(json.dumps({"reward": "much"}))


def too_often(messages):
    say(messages)
    messages.append({"role": "user", "content": "Again."})
    try:
        say(messages)
    except urllib.error.HTTPError as error:
        print(json.dumps({"said": json.load(error)["error"]["code"]}))
        print(json.dumps({"reward": 0.5}))


def asks_for_more(messages):
    say(messages, temperature=0.1, top_p=1, seed=7, frequency_penalty=0.5)
    print(json.dumps({"reward": 1}))


def with_another_key(messages):
    try:
        call(messages, key="sk-klimb-of-somebody-else")
    except urllib.error.HTTPError as error:
        say([{"role": "user", "content": f"status {error.code}"}])
        print(json.dumps({"reward": error.code}))


def is_random(messages):
    random.seed(int(os.environ["KLIMB_SEED"]))
    say(messages)
    messages.append({"role": "user", "content": f"It is {random.random():.3f}. {PROBLEM['seed']}"})
    say(messages)
    print(json.dumps({"reward": len(messages[1]["content"]) - len(messages[3]["content"])}))


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "count",
            "description": "Count vowels.",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        },
    }
]


def with_tools(messages):
    said = call(messages, tools=TOOLS)["choices"][0]
    (asked,) = said["message"]["tool_calls"]
    result = count(json.loads(asked["function"]["arguments"])["text"])
    messages += [said["message"], {"role": "tool", "tool_call_id": asked["id"], "content": str(result)}]
    say(messages, tools=TOOLS)
    print(json.dumps({"reward": float(said["finish_reason"] == "tool_calls")}))


def streams(messages):
    request = urllib.request.Request(
        f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
        data=json.dumps({"messages": messages, "stream": True}).encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = [line.decode().removeprefix("data: ").strip() for line in answer if line.strip()]
    deltas = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1]]
    print(json.dumps({"reward": float(lines[-1] == "[DONE]" and "".join(deltas) == "one")}))


def leaves_a_child(messages):
    if os.fork() == 0:
        time.sleep(600)
    say(messages)
    print(json.dumps({"reward": 1}))


if __name__ == "__main__":
    globals()[sys.argv[1]](PROBLEM["prompt"])

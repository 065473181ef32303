"""An agent with a loop of its own: environment.command = "python my_agent.py". It needs nothing of klimb.

It is started once for each sample: the problem comes as JSON on its standard input, and the policy answers at
OPENAI_BASE_URL to the key in OPENAI_API_KEY. Any client of OpenAI's API does, such as `openai.OpenAI()` without
arguments; this one is of Python's own library.
"""

import json
import os
import re
import sys
import urllib.request

TRIES = 3


def ask(messages: list[dict[str, str]]) -> str:
    """Return what the policy says to these messages."""
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        data=json.dumps({"model": os.environ["KLIMB_MODEL"], "messages": messages}).encode(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]},
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def check(said: str, expected: int) -> str:
    """Look at the last number that was said: the agent's own tool."""
    numbers = re.findall(r"-?\d+", said)
    if not numbers:
        return "That has no number in it."
    found = int(numbers[-1])
    return "right" if found == expected else f"{found} is too {'high' if found > expected else 'low'}."


def main() -> None:
    """Let the policy try, tell it what was wrong, and print what that was worth."""
    problem = json.load(sys.stdin)
    messages, reward = problem["prompt"], 0.0
    for tries in range(TRIES):
        messages.append({"role": "assistant", "content": ask(messages)})
        verdict = check(messages[-1]["content"], int(problem["answer"]))
        if verdict == "right":
            reward = 1 - tries / TRIES
            break
        messages.append({"role": "user", "content": f"{verdict} Try again, and say the number alone."})
    print(json.dumps({"reward": reward}))


if __name__ == "__main__":
    main()

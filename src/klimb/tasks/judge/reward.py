"""A judge's verdict as a reward: 0 for the least score, 1 for the largest; what is no verdict is no reward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from klimb.tasks.batches import Batches, BatchLimits, Scored, score_alone
from klimb.tasks.judge.endpoint import Endpoint, JudgeFailed
from klimb.tasks.judge.settings import NO_CACHE, JudgeSettings
from klimb.tasks.judge.verdict import NoVerdict, judge_messages, read_verdict
from klimb.tasks.judge.verdict_cache import VerdictCache, default_folder
from klimb.tasks.protocol import Problem, Response, Score

SHARE_OF_TIME = 0.9
"""Of an answer's time, that its requests may take: the rest is for saying why there was no verdict."""


# Not frozen: what a run is does not depend on it, and fields of a frozen dataclass are in the run's identity.
@dataclass
class Access:
    """How a judge is reached, and where its verdicts are kept."""

    endpoint: Endpoint
    cache: VerdictCache | None
    num_asked: int = field(default=0)
    """Requests that were sent, those sent again aside."""


@dataclass(frozen=True, kw_only=True)
class JudgeReward:
    """Scores with a judge's verdicts.

    Attributes:
        url: of the endpoint.
        model: that judges.
        rubric: what it judges by.
        lowest: its least score.
        highest: its largest score.
        max_tokens: that it may write.
        access: how it is reached.
    """

    url: str
    model: str
    rubric: str
    lowest: float
    highest: float
    max_tokens: int
    access: Access = field(repr=False, compare=False)

    @staticmethod
    def of_settings(settings: JudgeSettings) -> JudgeReward:
        """Return the reward; nothing is asked yet.

        Raises:
            ValueError: the rubric's file cannot be read.
        """
        endpoint = Endpoint(
            url=settings.url,
            key_env=settings.key_env,
            retries=settings.retries,
            wait_seconds=settings.wait_seconds,
        )
        folder = Path(settings.cache).expanduser().absolute() if settings.cache else default_folder()
        return JudgeReward(
            url=settings.url,
            model=settings.model,
            rubric=settings.read_rubric(),
            lowest=settings.lowest,
            highest=settings.highest,
            max_tokens=settings.max_tokens,
            access=Access(endpoint, None if settings.cache == NO_CACHE else VerdictCache(folder)),
        )

    @property
    def batches(self) -> Batches:
        """Any number of answers: each is judged by itself, and many wait at the same time."""
        return "any"

    @property
    def content(self) -> str:
        """16 hexadecimal digits of all that a verdict depends on, besides what is judged."""
        asked = [self.url, self.model, self.rubric, self.lowest, self.highest, self.max_tokens]
        return VerdictCache.key_of(asked)[:16]

    def prepare(self) -> None:
        """Look whether the key is there."""
        self.access.endpoint.read_key()

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score of one response."""
        return score_alone(self, problem, response)

    def score_batch(
        self, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits
    ) -> list[Scored]:
        """Return the scores; one without a reward, and with the reason, where there is no verdict."""
        with ThreadPoolExecutor(max_workers=limits.max_concurrent) as pool:
            asked = [
                pool.submit(self._judge, problem, response, limits.timeout_seconds * SHARE_OF_TIME)
                for problem, response in zip(problems, responses, strict=True)
            ]
            return [each.result() for each in asked]

    def _judge(self, problem: Problem, response: Response, seconds: float) -> Score:
        ends = time.monotonic() + seconds
        scale = {"lowest": self.lowest, "highest": self.highest}
        messages = judge_messages(self.rubric, problem.messages, _answer_of(response), **scale)
        cache = self.access.cache
        key = VerdictCache.key_of([self.url, self.model, messages, self.max_tokens])
        score = None if cache is None else cache.get(key)
        if score is None:
            self.access.num_asked += 1
            try:
                reply = self.access.endpoint.ask(
                    self.model, messages, max_tokens=self.max_tokens, seconds=ends - time.monotonic()
                )
                score = read_verdict(reply, **scale)
            except (JudgeFailed, NoVerdict) as error:
                return Score(reward=None, reason=str(error))
            if cache is not None:
                cache.put(key, score)
        reward = (score - self.lowest) / (self.highest - self.lowest)
        reason = f"{self.model} gives {score:g} of {self.lowest:g} to {self.highest:g}"
        return Score(reward=reward, parts={"reward": reward}, reason=reason)


def _answer_of(response: Response) -> str:
    """Return the answer's text; of a conversation all that came after the prompt, each message with its role."""
    if not response.messages:
        return response.text
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in response.messages)

"""The environments of a run: opened for problems, at most so many processes at a time, and closed at the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any

from klimb.tasks.environments.episode import Episode, Outcome
from klimb.tasks.environments.factories import find_location, is_here_alone, load_factory, name_of
from klimb.tasks.environments.host import HostSettings
from klimb.tasks.environments.live import Offer
from klimb.tasks.environments.processes import (
    EnvironmentDied,
    EnvironmentProcess,
    ForkServer,
    Host,
    ThisProcess,
)
from klimb.tasks.environments.requests import Inspect, Open
from klimb.tasks.environments.settings import EnvironmentSettings
from klimb.tasks.protocol import Problem
from klimb.tasks.shown_text import shown_line
from klimb.tasks.tools import CallFormat

BYTES_PER_GIGABYTE = 1e9


class Environments:
    """Opens environments for problems; a context manager. At its end no process of theirs is left.

    An environment lives in a process of its own, forked from one that has imported what it is made of and no model.
    What it prints is discarded. A call that takes too long is interrupted and answered with an error; where the
    process cannot be interrupted, or ends, the sample is lost. A process is used again once its environment closed
    cleanly; the environment itself is made anew each time, so that nothing passes from one sample to the next. What is
    slow to make belongs at the top of its module, which is loaded once.
    Of more environments than `max_processes` several share a process: they are called one after the other, each with
    random numbers of its own, and what ends the process loses all of them.

    What makes environments may be marked `trusted = True`: they then live in this process, and can neither hang nor
    end it. An object of this program that no other process can import (of a notebook, say) is held by forks of this
    process, without a limit on their memory. Texts hash there as they do here, so that the order of a set of them is
    another one after a resume.

    Attributes:
        tools: schemas of what any of the environments offers.
        has_reward: whether the environments give rewards themselves.
    """

    def __init__(
        self,
        settings: EnvironmentSettings,
        *,
        call_format: CallFormat,
        factory: Callable[[], object] | None = None,
        with_views: bool = True,
    ) -> None:
        """Prepare; processes start on entering.

        Args:
            settings: which environment and tools, and their limits.
            call_format: how the policy writes its calls.
            factory: the task's own, which stands in for a setting that is empty.
            with_views: whether reward functions see the environments: each is then copied at the end of its
                conversation.

        Raises:
            ValueError: there is neither an environment nor a tool.
        """
        self._factory = None if settings.factory else factory
        if not (settings.factory or settings.tools or factory):
            raise ValueError("there is neither environment.factory nor environment.tools: give one of them")
        self.settings = settings
        self.tools: tuple[Mapping[str, Any], ...] = ()
        self.has_reward = False
        self._call_format = call_format
        self._with_views = with_views
        self._server: ForkServer | None = None
        self._here: ThisProcess | None = None
        self._processes: list[EnvironmentProcess] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Environments:
        """Start what forks, and make one environment to see what it offers.

        Raises:
            ValueError: the environment cannot be loaded or made, or is none.
        """
        try:
            if not self._lives_here(self._factory):
                self._server = self._start_server()
                if self._server.trusted and not self.settings.tools:
                    self._server.close()
                    self._server = None
            if self._server is None:
                self._here = ThisProcess(self._offer())
            self._inspect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes."""
        self.close()

    def close(self) -> None:
        """End all processes at once, whatever they are doing."""
        if self._server is not None:
            self._server.close()
        while self._processes:
            self._processes.pop().close()
        self._server, self._here = None, None

    def open(self, problems: Sequence[Problem], seeds: Sequence[int]) -> list[Episode]:
        """Return an open conversation for each problem; one that could not be opened has an `error`.

        Before an environment is made, Python's and NumPy's global random numbers are seeded for it alone.

        Raises:
            ValueError: `reset` wants what the problems do not have, or there is not one seed a problem.
        """
        if len(problems) != len(seeds):
            raise ValueError(f"got {len(seeds)} seeds for {len(problems)} problems; there must be one for each")
        opening: list[Future[Episode]] = []
        episodes: list[Episode] = []
        try:
            for problem, seed in zip(problems, seeds, strict=True):
                episode = self._reserve()
                episodes.append(episode)
                opening.append(episode.host.submit(_opener(episode, problem, seed)))
            return [future.result() for future in opening]
        except BaseException:
            for episode in episodes:
                episode.close()
            raise

    def finish(self, episodes: Sequence[Episode]) -> list[Outcome]:
        """Return what came of each conversation, asking them all at the same time, and close them."""
        waiting = [episode.begin_finish() for episode in episodes]
        outcomes = [future.result() for future in waiting]
        for episode in episodes:
            episode.close()
        return outcomes

    def _lives_here(self, factory: Callable[[], object] | None) -> bool:
        return factory is not None and getattr(factory, "trusted", False) and not self.settings.tools

    def _start_server(self) -> ForkServer:
        told, factory = self.settings, self._factory
        location = "" if factory is None else find_location(factory)
        if location:
            told, factory = replace(told, factory=location), None
        is_fork = factory is not None or is_here_alone(told)
        memory = None if is_fork or told.memory_limit_gigabytes is None else told.memory_limit_gigabytes
        limit = None if memory is None else int(memory * BYTES_PER_GIGABYTE)
        host_settings = HostSettings(environment=told, factory=factory, memory_limit_bytes=limit)
        return ForkServer(host_settings, is_fork=is_fork)

    def _offer(self) -> Offer:
        factory = self._factory or load_factory(self.settings)
        return Offer(
            factory=factory,
            tools=(),
            name=self.settings.factory or name_of(factory),
            call_seconds=self.settings.call_seconds,
            sample_seconds=self.settings.sample_seconds,
        )

    def _inspect(self) -> None:
        """Make an environment to see what it offers."""
        host = self._take_host()
        name = self.settings.factory or name_of(self._factory)
        try:
            answer = host.submit(lambda: host.ask(Inspect())).result()
        except EnvironmentDied as error:
            raise ValueError(f"environment.factory = {name!r}: what is made there {error}") from error
        wrong = answer.get("refused") or answer.get("failure")
        if answer.get("names_its_key"):
            raise ValueError(wrong)
        if wrong:
            hint = ""
            if answer.get("is_slow"):
                hint = " to be made; load what is slow at the top of its module, or raise environment.call_seconds"
            raise ValueError(f"environment.factory = {name!r}: {wrong}{hint}")
        self.tools = tuple(answer["tools"])
        self.has_reward = answer["has_reward"]

    def _reserve(self) -> Episode:
        """Return a conversation that has its place, and is not open yet."""
        host, number = self._take_host(), next(self._numbers)
        host.numbers.add(number)
        return Episode(number=number, host=host, call_format=self._call_format, with_view=self._with_views)

    def _take_host(self) -> Host:
        """Return whoever can hold one environment more, with as few others as may be."""
        if self._here is not None:
            return self._here
        if self._server is None:
            raise ValueError("the environments are not running; use them as `with Environments(...) as environments:`")
        for process in [each for each in self._processes if not each.is_alive or not (each.numbers or each.is_clean)]:
            self._processes.remove(process)
            process.close()
        idle = next((process for process in self._processes if not process.numbers), None)
        if idle is None and len(self._processes) < self.settings.max_processes:
            idle = self._new_process(self._server)
        return idle or min(self._processes, key=lambda process: len(process.numbers))

    def _new_process(self, server: ForkServer) -> EnvironmentProcess:
        try:
            process = EnvironmentProcess(server)
        except EnvironmentDied:
            # Something ended what forks: all that it had forked is gone, and the next samples need another.
            server.close()
            self._server = self._start_server()
            process = EnvironmentProcess(self._server)
        self._processes.append(process)
        return process


def _opener(episode: Episode, problem: Problem, seed: int) -> Callable[[], Episode]:
    request = Open(number=episode.number, row=row_of(problem), seed=seed)

    def open_it() -> Episode:
        try:
            answer = episode.host.ask(request)
        except EnvironmentDied as error:
            answer: dict[str, Any] = {"failure": str(error)}
        if "refused" in answer:
            raise ValueError(answer["refused"])
        if answer.get("is_slow"):
            episode.host.is_clean = False
        episode.error = shown_line(answer.get("failure", ""))
        episode.opening = answer.get("opening", "")
        episode.tools = tuple(answer["tools"]) if "tools" in answer else ()
        return episode

    return open_it


def row_of(problem: Problem) -> dict[str, Any]:
    """Return what `reset` is given of a problem: its columns, as TRL gives those of a dataset.

    Those of a file are as the file has them, numbers as numbers.
    """
    prompt = [dict(message) for message in problem.messages]
    own = {"problem_id": problem.problem_id, "answer": problem.answer}
    if problem.columns:
        return {**own, **problem.columns, "prompt": prompt}
    return {**problem.metadata, **own, "prompt": prompt}

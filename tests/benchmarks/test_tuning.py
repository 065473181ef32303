"""TRL gets the fastest of its settings, found one after another."""

import pytest

from benchmarks.vs_trl import tuning
from benchmarks.vs_trl.settings import TrlSettings
from benchmarks.vs_trl.turns import SideError
from benchmarks.workload import Workload


def cost(settings: TrlSettings) -> float:
    """Seconds that have their least at eager attention, 32 rows and a dynamic cache."""
    return {"sdpa": 2.0, "eager": 1.0}[settings.attention] + abs(settings.micro_batch - 32) / 16


def test_each_setting_is_tried_beside_the_best_so_far(monkeypatch: pytest.MonkeyPatch):
    tried: list[TrlSettings] = []

    def faster(workload: Workload, first: TrlSettings, second: TrlSettings, *, num_steps: int) -> TrlSettings:
        if second.cache == "static":
            raise SideError("out of memory")
        tried.append(second)
        return min(first, second, key=cost)

    monkeypatch.setattr(tuning, "faster", faster)
    best = tuning.tuned(Workload(num_prompts=4), TrlSettings())
    assert (best.attention, best.micro_batch, best.keep_memory, best.cache) == ("eager", 32, True, "dynamic")
    # 4 x 8 rows: no micro-batch of 64; the one it starts from is not tried again.
    assert [settings.micro_batch for settings in tried] == [16, 8, 32, 32]


def test_the_micro_batch_is_halved_as_long_as_that_helps(monkeypatch: pytest.MonkeyPatch):
    def faster(workload: Workload, first: TrlSettings, second: TrlSettings, *, num_steps: int) -> TrlSettings:
        return min(first, second, key=lambda settings: abs(settings.micro_batch - fastest))

    monkeypatch.setattr(tuning, "faster", faster)
    for fastest in (2, 1):
        assert tuning.tuned(Workload(num_prompts=4), TrlSettings()).micro_batch == fastest

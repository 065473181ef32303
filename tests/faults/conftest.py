from collections.abc import Iterator

import pytest

from tests.faults.scene import Scene, set_up

NUM_STEPS = 8

SHAPES = ("plain", "replay")


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The undisturbed runs and the process that forks the others, made once for all who read them."""
    scenes = set_up(tmp_path_factory.mktemp("faults"), list(SHAPES), num_steps=NUM_STEPS)
    yield scenes[0]
    scenes[0].nursery.close()

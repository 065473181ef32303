"""What can be asked of a service, and that asking loads no torch."""

import subprocess
import sys

import pytest

from klimb.experience.samples import SamplingSettings
from klimb.samplers.service import DrawRequest


def request(**changes) -> DrawRequest:
    return DrawRequest(**{"prompt_ids": (1, 2), "settings": SamplingSettings(), "seed": 3, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt_ids": ()}, "prompt_ids is empty"),
        ({"seed": -1}, r"seed must be in 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, "seed must be in"),
        ({"num_top_log_probs": 21}, "num_top_log_probs must be in 0 to 20, got 21"),
    ],
)
def test_a_request_that_means_nothing_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        request(**changes)


def test_the_largest_values_are_taken():
    assert request(seed=2**64 - 1, num_top_log_probs=20).seed == 2**64 - 1


def test_requests_and_answers_are_named_without_torch():
    program = (
        "import sys; import klimb.samplers.service.requests, klimb.samplers.completion;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

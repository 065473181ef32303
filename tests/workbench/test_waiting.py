import os
import subprocess
import sys

import pytest

SHOW = """
import os, sys
import klimb.workbench
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "PASSIVE 1000 False"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7 False"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None False"),
    ],
)
def test_threads_spin_briefly_unless_the_environment_says_otherwise(given: dict[str, str], expected: str):
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", SHOW], env=plain | given, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == expected

"""Each pattern of a long case fits a test that is there."""

import subprocess
import sys
from fnmatch import fnmatch

import pytest

from tests.long_cases import LONG


@pytest.mark.slow
def test_each_pattern_fits_a_test():
    files = sorted({pattern.partition("::")[0] for pattern in LONG})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [pattern for pattern in LONG if not any(fnmatch(name, pattern) for name in found)] == []

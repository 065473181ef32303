"""The setting of the C library's allocator."""

import platform
import subprocess
import sys

import pytest

REPORT = """
import torch
from klimb.policies.memory import keep_freed_memory

def faults():
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

print(keep_freed_memory())
torch.set_num_threads(1)
x = torch.ones(4 * 2**20)
x * 2
before = faults()
for _ in range(100):
    x * 2
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_tensors_are_used_again_without_fresh_pages():
    # In a process of its own, because the setting holds for the whole process. Each of the 100 results is 16 MiB, 4096
    # pages of 4 KiB; a few may need fresh pages before the freed ones are found.
    out = subprocess.run([sys.executable, "-c", REPORT], check=True, capture_output=True, text=True).stdout.split()
    assert out[0] == "True"
    assert int(out[1]) < 0.2 * 100 * 4096

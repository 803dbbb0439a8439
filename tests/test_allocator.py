import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from parityfl.allocator import keep_freed_memory
from parityfl.training.device import use_one_thread

use_one_thread()
keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(20):  # until the places that are free anyway are used up
    torch.ones(2**20)
before = faults()
for _ in range(20):
    torch.ones(2**20)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_what_is_freed_is_not_handed_out_anew() -> None:
    """Twenty tensors of 4 MB have 20,480 pages."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000

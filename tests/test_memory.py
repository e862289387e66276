import platform
import subprocess
import sys

import pytest

from posedy.system import keep_freed_memory

_COUNT_PAGE_FAULTS = """
import resource, sys
import numpy as np
from posedy.system import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    for _ in range(4):
        np.ones(4 << 20)  # 32 MiB, freed at once

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _COUNT_PAGE_FAULTS, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_freed_memory_is_used_again():
    assert page_faults("keep") < page_faults("give back") / 10


def test_does_nothing_with_another_c_library(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("the C library was called"))
    keep_freed_memory()

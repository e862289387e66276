"""Devices, memory and workers: what the package asks the system."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from posedy.system import choose_device, computes_bf16, default_workers, keep_freed_memory


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_that_is_there(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == torch.device(chosen)


def test_takes_the_named_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize(("devices", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_refuses_an_absent_gpu(monkeypatch, devices, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(ValueError, match=f"'{name}' is absent: torch sees {devices} CUDA"):
        choose_device(name)


def test_refuses_absent_mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'mps' is absent"):
        choose_device("mps")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "meta", "xpu", "CPU0"])
def test_refuses_other_names_and_says_which_there_are(name):
    with pytest.raises(ValueError, match="use auto, cpu, cuda, cuda:1 or mps"):
        choose_device(name)


@pytest.mark.parametrize(("amx", "avx512_bf16", "computes"), [(1, 0, True), (0, 1, True), (0, 0, False)])
def test_a_cpu_computes_bf16_with_instructions_for_it(monkeypatch, amx, avx512_bf16, computes):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx), raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512_bf16), raising=False)
    assert computes_bf16(torch.device("cpu")) is computes


def test_gpus_compute_bf16_from_ampere_on(monkeypatch):
    for capability, computes in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert computes_bf16(torch.device("cuda")) is computes
    assert not computes_bf16(torch.device("mps"))


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


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (8, 8), (64, 8)])
def test_one_for_each_core_that_may_be_used(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    assert default_workers() == workers


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (4, 4), (96, 8)])
def test_systems_that_do_not_say_which_cores_may_be_used(monkeypatch, cores, workers):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_workers() == workers

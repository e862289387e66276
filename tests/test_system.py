"""Device selection, memory settings and default workers."""

import contextlib
import functools
import importlib.util
import os
import platform
import re
import subprocess
import sys
import threading

import pytest
import torch

from posedy.export import runtimes
from posedy.system import (
    check_process,
    choose_device,
    default_num_workers,
    keep_freed_memory,
    one_torch_thread,
    supports_bf16,
    use_one_thread_after_fork,
)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_selects_the_fastest_available_device(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == torch.device(chosen)


def test_named_device_is_selected(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize(("devices", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_missing_gpu_raises(monkeypatch, devices, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(ValueError, match=f"'{name}'.*{devices} CUDA"):
        choose_device(name)


def test_missing_mps_raises(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'mps'"):
        choose_device("mps")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "meta", "xpu", "CPU0"])
def test_unknown_name_raises_with_the_valid_names(name):
    with pytest.raises(ValueError, match="auto, cpu, cuda, cuda:1 or mps"):
        choose_device(name)


@pytest.mark.parametrize(("amx", "avx512_bf16", "expected"), [(1, 0, True), (0, 1, True), (0, 0, False)])
def test_cpu_supports_bf16_with_special_instructions(monkeypatch, amx, avx512_bf16, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx), raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512_bf16), raising=False)
    assert supports_bf16(torch.device("cpu")) is expected


def test_gpus_support_bf16_from_ampere_on(monkeypatch):
    for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, value=capability: value)
        assert supports_bf16(torch.device("cuda")) is expected
    assert not supports_bf16(torch.device("mps"))


_COUNT_PAGE_FAULTS = """
import resource, sys
import numpy as np
from posedy.system import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    for _ in range(4):
        np.ones(4 << 20)  # 32 MiB, freed immediately

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", _COUNT_PAGE_FAULTS, mode], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_reused():
    assert count_page_faults("keep") < count_page_faults("default") / 10


def test_other_c_library_is_not_changed(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("the C library was called"))
    keep_freed_memory()


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (8, 8), (64, 8)])
def test_default_is_one_worker_per_available_core(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    assert default_num_workers() == workers


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (4, 4), (96, 8)])
def test_default_without_cpu_affinity_uses_the_cpu_count(monkeypatch, cores, workers):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_num_workers() == workers


def test_another_process_is_an_error_that_names_spawn() -> None:
    check_process(os.getpid(), "OpenVINO")
    with pytest.raises(RuntimeError, match=r"OpenVINO.*spawn"):
        check_process(os.getppid(), "OpenVINO")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_one_thread_is_for_this_thread_and_this_block() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    started, inside, seen = threading.Event(), threading.Event(), []

    def observe() -> None:
        torch.get_num_threads()  # from here on this thread has its own number
        started.set()
        inside.wait()
        seen.append(torch.get_num_threads())

    other = threading.Thread(target=observe)
    other.start()
    started.wait()
    try:
        with one_torch_thread():
            assert torch.get_num_threads() == 1
            inside.set()
            other.join()
        assert torch.get_num_threads() == 2
        assert seen == [2]
    finally:
        torch.set_num_threads(before)


def test_threads_keep_their_number_while_others_have_one() -> None:
    """Threads start, use torch and enter the block while others are inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen: list[int] = []
    barrier = threading.Barrier(5)

    def observe() -> None:
        seen.append(torch.get_num_threads())

    def enter(turn: int) -> None:
        barrier.wait()
        for _ in range(turn):
            with one_torch_thread():
                pass
        with one_torch_thread():
            barrier.wait()
            bystander = threading.Thread(target=observe)
            bystander.start()
            bystander.join()
            barrier.wait()
        observe()

    threads = [threading.Thread(target=enter, args=[turn]) for turn in range(4)]
    try:
        with one_torch_thread():
            for thread in threads:
                thread.start()
            for _ in range(3):
                barrier.wait()
        for thread in threads:
            thread.join()
        bystander = threading.Thread(target=observe)
        bystander.start()
        bystander.join()
        observe()
        assert seen == [3] * 10
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform == "win32", reason="torch hides OpenMP's functions")
def test_one_thread_is_for_mkl_and_may_be_nested() -> None:
    def numbers() -> list[str]:
        return re.findall(r"(?:omp|mkl)_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_torch_thread():
            with one_torch_thread():
                assert set(numbers()) == {"1"}
            assert set(numbers()) == {"1"}
        assert set(numbers()) == {"3"}
    finally:
        torch.set_num_threads(before)


def test_one_thread_ends_with_an_error() -> None:
    before = torch.get_num_threads()
    with contextlib.suppress(ValueError), one_torch_thread():
        raise ValueError
    assert torch.get_num_threads() == before


def test_forked_processes_compute_with_one_thread() -> None:
    use_one_thread_after_fork()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        process = os.fork()
        if process == 0:
            os._exit(torch.get_num_threads())
        _, status = os.waitpid(process, 0)
        assert os.waitstatus_to_exitcode(status) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_openvino_of_another_process_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSEDY_RUNTIME", raising=False)
    core = object()
    create = functools.cache(lambda: (core, os.getpid()))
    monkeypatch.setattr(runtimes, "_create_core", create)
    assert runtimes.openvino_core() is core
    is_preferred = runtimes.prefers_openvino()
    monkeypatch.setattr(os, "getpid", lambda: 0)
    assert runtimes.prefers_openvino() is False
    with pytest.raises(RuntimeError, match="spawn"):
        runtimes.openvino_core()
    assert is_preferred == (importlib.util.find_spec("openvino") is not None)

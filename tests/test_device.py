import pytest
import torch

from posedy.system import choose_device, computes_bf16


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

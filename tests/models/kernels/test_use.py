"""Where the kernels are used, and where they are not; a program too, see conftest.py."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import posedy.models.blocks
import posedy.models.ops
from posedy.models.blocks import ConvFactory, ConvNormAct, DynamicConvFactory, InvertedResidual, static_conv
from posedy.models.kernels.availability import takes
from posedy.models.registry import create_model

BLOCKS: dict[str, tuple[ConvFactory, Callable[[], nn.Module], int]] = {
    "dynamic, stride 1": (DynamicConvFactory(), nn.ReLU6, 1),
    "static, stride 2": (static_conv, nn.ReLU, 2),
    "an activation without a kernel": (static_conv, nn.Hardswish, 1),
}


def results(block: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """The output, all gradients and all buffers of a step."""
    x = x.clone().requires_grad_()
    y = block(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    yield y.detach()
    yield from (parameter.grad for parameter in block.parameters() if parameter.grad is not None)
    yield x.grad if x.grad is not None else torch.empty(0)
    yield from block.buffers()


def measure() -> list[Any]:
    """Of blocks with and without kernels, on the CPU: the largest relative difference, and the kernels used."""
    from posedy.models.kernels import batch_norm, depthwise

    used: list[str] = []

    def noted(kernel: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            used.append(f"{name} {arguments[2]}")
            return kernel(*arguments)

        return call

    batch_norm.batch_norm_act = noted(batch_norm.batch_norm_act, "norm")
    depthwise.depthwise = noted(depthwise.depthwise, "depthwise")
    found = []
    for name, (conv, activation, stride) in BLOCKS.items():
        torch.manual_seed(0)
        plain = InvertedResidual(2, 3, 2, 3, stride, conv, activation=activation)
        fused = copy.deepcopy(plain)
        x = torch.randn(2, 2, 4, 3)
        expected = list(results(plain, x))
        posedy.models.blocks.takes = posedy.models.ops.takes = torch.is_tensor
        used.clear()
        difference = max(
            float((one - other).abs().max() / other.abs().max().clamp_min(1))
            for one, other in zip(results(fused, x), expected, strict=True)
        )
        posedy.models.blocks.takes = posedy.models.ops.takes = takes
        found.append([name, difference, list(used)])
    return found


if __name__ == "__main__":
    print(json.dumps(measure()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton cannot interpret its kernels where there is a GPU")
def test_blocks_with_kernels_compute_what_they_do_without(printed_by: Callable[[str], list[Any]]) -> None:
    measured = {name: (difference, used) for name, difference, used in printed_by(__file__)}
    for name, (difference, _) in measured.items():
        assert difference < 1e-5, name
    assert [used for _, used in measured.values()] == [
        ["norm relu6", "depthwise 1", "norm relu6", "norm none"],
        ["norm relu", "depthwise 2", "norm relu", "norm none"],
        ["depthwise 1", "norm none"],
    ]


def test_tensors_of_the_cpu_are_not_for_kernels() -> None:
    assert not takes(torch.zeros(2, 3, 4, 5))


class Norm(nn.BatchNorm2d):
    """One that might compute something else."""


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3).eval(),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3).half(),
        nn.GroupNorm(1, 3),
        Norm(3),
    ],
    ids=["frozen", "cumulative", "no statistics", "not affine", "half", "another", "subclass"],
)
def test_other_norms_go_the_plain_way(norm: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """With kernels that would take anything; a batch of one value is left to torch, which refuses it."""
    layers = nn.Conv2d(2, 3, 1), norm, nn.ReLU()
    x = torch.randn(4, 2, 3, 3)
    if next(norm.parameters(), x).dtype == torch.half:
        x = x.half()
        layers[0].half()
    expected = nn.Sequential(*copy.deepcopy(layers))(x)
    monkeypatch.setattr(posedy.models.blocks, "takes", torch.is_tensor)
    torch.testing.assert_close(ConvNormAct(*layers)(x), expected, rtol=0, atol=0)


def test_one_value_is_refused_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posedy.models.blocks, "takes", torch.is_tensor)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ConvNormAct(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))(torch.randn(1, 2, 1, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["dy_mobilenetv2_035-dy_bneck", "dy_mobilenetv3_small-bneck", "dy_resnet10-deconv"])
def test_a_network_trains_on_a_gpu_as_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    torch.manual_seed(0)
    net = create_model(name, input_size=(64, 96)).train()
    on_gpu, exact = copy.deepcopy(net).cuda(), net.double()
    x = torch.randn(8, 3, 96, 64)
    expected = exact(x.double())
    pull = torch.randn(expected.shape)
    expected.backward(pull.double())
    y = on_gpu(x.cuda())
    y.backward(pull.cuda())

    def flat(tensors: Iterator[Tensor]) -> Tensor:
        return torch.cat([tensor.detach().double().cpu().flatten() for tensor in tensors])

    def gradients(of: nn.Module) -> Iterator[Tensor]:
        return (parameter.grad for parameter in of.parameters() if parameter.grad is not None)

    pairs = {
        "heatmaps": (flat(iter([y])), flat(iter([expected]))),
        "gradients": (flat(gradients(on_gpu)), flat(gradients(exact))),
        "statistics": (flat(on_gpu.buffers()), flat(exact.buffers())),
    }
    # rounding decides on which side of an activation's kink a few values lie
    for what, (ours, theirs) in pairs.items():
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-2, what

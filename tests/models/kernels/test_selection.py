"""Selection of the Triton kernels in blocks and networks; also a script, see conftest.py."""

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
from posedy.models.factory import create_model
from posedy.models.kernels.availability import can_use_triton

BLOCKS: dict[str, tuple[ConvFactory, Callable[[], nn.Module], int]] = {
    "dynamic, stride 1": (DynamicConvFactory(), nn.ReLU6, 1),
    "static, stride 2": (static_conv, nn.ReLU, 2),
    "an activation without a kernel": (static_conv, nn.Hardswish, 1),
}


def train_step(block: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yields the output, all gradients and all buffers of a training step."""
    x = x.clone().requires_grad_()
    y = block(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    yield y.detach()
    yield from (parameter.grad for parameter in block.parameters() if parameter.grad is not None)
    yield x.grad if x.grad is not None else torch.empty(0)
    yield from block.buffers()


def measure() -> list[Any]:
    """Returns the largest relative difference between blocks with and without kernels, and the kernels used."""
    from posedy.models.kernels import batch_norm, depthwise

    used: list[str] = []

    def recorded(kernel: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            used.append(f"{name} {arguments[2]}")
            return kernel(*arguments)

        return call

    batch_norm.batch_norm_act = recorded(batch_norm.batch_norm_act, "norm")
    depthwise.depthwise = recorded(depthwise.depthwise, "depthwise")
    rows = []
    for name, (conv, activation, stride) in BLOCKS.items():
        torch.manual_seed(0)
        reference = InvertedResidual(2, 3, 2, 3, stride, conv, activation=activation)
        fused = copy.deepcopy(reference)
        x = torch.randn(2, 2, 4, 3)
        expected = list(train_step(reference, x))
        posedy.models.blocks.can_use_triton = posedy.models.ops.can_use_triton = torch.is_tensor
        used.clear()
        difference = max(
            float((actual - wanted).abs().max() / wanted.abs().max().clamp_min(1))
            for actual, wanted in zip(train_step(fused, x), expected, strict=True)
        )
        posedy.models.blocks.can_use_triton = posedy.models.ops.can_use_triton = can_use_triton
        rows.append([name, difference, list(used)])
    return rows


if __name__ == "__main__":
    print(json.dumps(measure()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton's interpreter is not available with a GPU")
def test_blocks_with_and_without_kernels_are_equal(run_script: Callable[[str], list[Any]]) -> None:
    measured = {name: (difference, used) for name, difference, used in run_script(__file__)}
    for name, (difference, _) in measured.items():
        assert difference < 1e-5, name
    assert [used for _, used in measured.values()] == [
        ["norm relu6", "depthwise 1", "norm relu6", "norm none"],
        ["norm relu", "depthwise 2", "norm relu", "norm none"],
        ["depthwise 1", "norm none"],
    ]


def test_cpu_tensors_do_not_use_kernels() -> None:
    assert not can_use_triton(torch.zeros(2, 3, 4, 5))


class BatchNormSubclass(nn.BatchNorm2d):
    """A subclass, which may compute something else."""


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3).eval(),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3).half(),
        nn.GroupNorm(1, 3),
        BatchNormSubclass(3),
    ],
    ids=["frozen", "cumulative", "no statistics", "not affine", "half", "group norm", "subclass"],
)
def test_unsupported_norms_run_without_kernels(norm: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Conv2d(2, 3, 1), norm, nn.ReLU()
    x = torch.randn(4, 2, 3, 3)
    if next(norm.parameters(), x).dtype == torch.half:
        x = x.half()
        layers[0].half()
    expected = nn.Sequential(*copy.deepcopy(layers))(x)
    monkeypatch.setattr(posedy.models.blocks, "can_use_triton", torch.is_tensor)
    torch.testing.assert_close(ConvNormAct(*layers)(x), expected, rtol=0, atol=0)


def test_single_value_is_rejected_as_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posedy.models.blocks, "can_use_triton", torch.is_tensor)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ConvNormAct(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))(torch.randn(1, 2, 1, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["dy_mobilenetv2_035-dy_bneck", "dy_mobilenetv3_small-bneck", "dy_resnet10-deconv"])
def test_training_on_gpu_equals_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    torch.manual_seed(0)
    net = create_model(name, input_size=(64, 96)).train()
    on_gpu, exact = copy.deepcopy(net).cuda(), net.double()
    x = torch.randn(8, 3, 96, 64)
    expected = exact(x.double())
    grad = torch.randn(expected.shape)
    expected.backward(grad.double())
    y = on_gpu(x.cuda())
    y.backward(grad.cuda())

    def flat(tensors: Iterator[Tensor]) -> Tensor:
        return torch.cat([tensor.detach().double().cpu().flatten() for tensor in tensors])

    def gradients(module: nn.Module) -> Iterator[Tensor]:
        return (parameter.grad for parameter in module.parameters() if parameter.grad is not None)

    pairs = {
        "heatmaps": (flat(iter([y])), flat(iter([expected]))),
        "gradients": (flat(gradients(on_gpu)), flat(gradients(exact))),
        "statistics": (flat(on_gpu.buffers()), flat(exact.buffers())),
    }
    # rounding puts a few values on the other side of an activation's kink
    for name, (actual, reference) in pairs.items():
        assert float((actual - reference).norm() / reference.norm()) < 1e-2, name

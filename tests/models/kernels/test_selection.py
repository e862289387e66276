"""Selection of the Triton kernels in blocks and networks."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import posedy.models.blocks
from posedy.models.blocks import ConvNormAct
from posedy.models.factory import create_model
from posedy.models.kernels.availability import can_use_triton


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

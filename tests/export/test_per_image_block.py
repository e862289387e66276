"""Blocks that process one image at a time equal blocks that process the batch."""

import pytest
import torch
from torch import Tensor, nn

from posedy.export.fuse import PerImageBlock, fuse
from posedy.models.factory import create_backbone


class RecordingBlock(nn.Module):
    """Doubles its input and records the batch sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batch_sizes.append(len(x))
        return 2 * x


@pytest.mark.parametrize(("channels", "batch_sizes"), [(10, [3]), (1000, [1, 1, 1])])
def test_batch_is_split_for_large_feature_maps(channels: int, batch_sizes: list[int]) -> None:
    block = RecordingBlock()
    x = torch.randn(3, 4, 16, 24).contiguous(memory_format=torch.channels_last)
    y = PerImageBlock(block, channels)(x)
    assert block.batch_sizes == batch_sizes
    assert torch.equal(y, 2 * x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert PerImageBlock(block, channels)(x[:1]).shape == (1, 4, 16, 24)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dy_mobilenetv2_035", "mobilenetv2_035", "dy_mobilenetv3_small"])
def test_networks_with_large_feature_maps_equal_the_original(name: str, perturb) -> None:
    x = torch.randn(3, 3, 192, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = perturb(create_backbone(name).double(), x)
    fused = fuse(net)
    batch_sizes: list[int] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        batch_sizes.append(len(inputs[0]))

    for layer in fused.modules():
        if isinstance(layer, PerImageBlock):
            layer.block.register_forward_pre_hook(record)
    with torch.no_grad():
        expected, actual = net(x), fused(x)
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-6
    assert set(batch_sizes) == {1, 3}, "large feature maps image by image, small ones as a batch"

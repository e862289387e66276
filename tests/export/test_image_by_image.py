"""Blocks that take one image after the other compute what they compute of a batch."""

import pytest
import torch
from torch import Tensor, nn

from posedy.export.fuse import ImageByImage, fuse
from posedy.models.registry import create_backbone


class Counting(nn.Module):
    """Doubles, and remembers the sizes of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return 2 * x


@pytest.mark.parametrize(("channels", "batches"), [(10, [3]), (1000, [1, 1, 1])])
def test_a_batch_is_split_where_the_widest_map_is_large(channels: int, batches: list[int]) -> None:
    block = Counting()
    x = torch.randn(3, 4, 16, 24).contiguous(memory_format=torch.channels_last)
    y = ImageByImage(block, channels)(x)
    assert block.batches == batches
    assert torch.equal(y, 2 * x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert ImageByImage(block, channels)(x[:1]).shape == (1, 4, 16, 24)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dy_mobilenetv2_035", "mobilenetv2_035", "dy_mobilenetv3_small"])
def test_networks_with_large_maps_stay_equal(name: str, perturb) -> None:
    x = torch.randn(3, 3, 192, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = perturb(create_backbone(name).double(), x)
    fused = fuse(net)
    batches: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        batches.append(len(inputs[0]))

    for layer in fused.modules():
        if isinstance(layer, ImageByImage):
            layer.block.register_forward_pre_hook(note)
    with torch.no_grad():
        expected, found = net(x), fused(x)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-6
    assert set(batches) == {1, 3}, "large maps one by one, small ones at once"

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.models.blocks import DynamicConvFactory
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.heads import BneckHead, DeconvHead, FPNHead
from posedy.models.ops import BilinearUpsample

PARAMETERS = {1280: (1_208_081, 6_318_877), 576: (1_008_849, 4_871_101), 512: (990_737, 4_764_061)}
DECONV_PARAMETERS = {1280: 7_345_937, 576: 4_462_353, 512: 4_200_209}

# Table 9 for an 8x6 feature map of B channels: output height, kernel size, input and output channels, groups
TABLE_9 = [
    *((16, 5, "B", "B", "B"), (16, 1, "B", 256, 1)),
    *((16, 1, 256, 768, 1), (16, 5, 768, 768, 768), (16, 1, 768, 256, 1)),
    *((32, 1, 256, 768, 1), (32, 5, 768, 768, 768), (32, 1, 768, 128, 1)),
    *((64, 1, 128, 384, 1), (64, 5, 384, 384, 384), (64, 1, 384, 128, 1)),
    (64, 1, 128, 17, 1),
]


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("channels", PARAMETERS)
def test_parameter_counts(channels):
    assert count(BneckHead(channels, 17)) == PARAMETERS[channels][0]
    assert count(BneckHead(channels, 17, DynamicConvFactory())) == PARAMETERS[channels][1]
    assert count(DeconvHead(channels, 17)) == DECONV_PARAMETERS[channels]


@pytest.mark.parametrize("dynamic", [False, True])
def test_bneck_head_equals_table_9(dynamic):
    channels = 64
    head = BneckHead(channels, 17, DynamicConvFactory()) if dynamic else BneckHead(channels, 17)
    calls = []
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d | DynamicConv2d):
            layer.register_forward_hook(lambda layer, inputs, output: calls.append((layer, output.shape)))
    assert head(torch.randn(1, channels, 8, 6)).shape == (1, 17, 64, 48)
    rows = [
        (shape[2], layer.kernel_size[0], layer.in_channels, layer.out_channels, layer.groups) for layer, shape in calls
    ]
    assert rows == [tuple(channels if entry == "B" else entry for entry in row) for row in TABLE_9]
    assert all(shape[2] * 6 == shape[3] * 8 for _, shape in calls)
    assert [isinstance(layer, DynamicConv2d) for layer, _ in calls] == [dynamic] * 11 + [False]


def test_bneck_head_has_residuals_where_channels_are_equal():
    head = BneckHead(64, 17)
    assert [block.is_residual for stage in head.stages for block in list(stage)[1:]] == [False, True, False, True]


def test_bneck_head_upsamples_bilinearly_without_aligned_corners():
    head = BneckHead(8, 2)
    upsampled = head.stages[0][0](torch.tensor([[[[0.0, 4.0]]]]))
    torch.testing.assert_close(upsampled, torch.tensor([[[[0.0, 1.0, 3.0, 4.0]] * 2]]).reshape(1, 1, 2, 4))
    assert [type(stage[0]) for stage in head.stages] == [BilinearUpsample] * 3


def test_deconv_head_layers():
    head = DeconvHead(32, 5)
    assert [type(layer) for layer in head] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3 + [nn.Conv2d]
    for layer in list(head)[0:9:3]:
        assert layer.out_channels == 256
        assert layer.kernel_size == (4, 4)
        assert layer.bias is None
    assert head(torch.randn(2, 32, 2, 3)).shape == (2, 5, 16, 24)


@pytest.mark.parametrize(
    "head", [DeconvHead(64, 17), BneckHead(64, 17), BneckHead(64, 17, DynamicConvFactory()), FPNHead((8, 8, 8, 64), 17)]
)
def test_last_layers_are_initialized_near_zero(head):
    last = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)][-1]
    assert last.out_channels == 17
    assert last.bias is not None
    assert not last.bias.any()
    for layer in [last, *(layer for layer in head.modules() if isinstance(layer, nn.ConvTranspose2d))]:
        torch.testing.assert_close(layer.weight.std(), torch.tensor(0.001), rtol=0.1, atol=0)
        assert layer.weight.mean().abs() < 1e-4
        assert layer.weight.abs().max() > 0.0025  # normal, not uniform with its maximum at sqrt(3) * 0.001


class ReferenceFPN:
    """A reference implementation of `FPNHead` with torch's functions, in evaluation mode."""

    def __init__(self, head: FPNHead) -> None:
        self.state = head.state_dict()
        self.eps = 1e-5

    def conv(self, x: Tensor, name: str, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2, groups=groups)

    def block(self, x: Tensor, index: int) -> Tensor:
        x = self.conv(self.conv(x, f"blocks.{index}.0", groups=x.shape[1]), f"blocks.{index}.1.0")
        norm = f"blocks.{index}.1.1"
        mean, var, weight, bias = (
            self.state[f"{norm}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.clamp((x - mean) / (var + self.eps).sqrt() * weight + bias, min=0)

    def __call__(self, features: list[Tensor]) -> Tensor:
        m = self.conv(features[3], "laterals.0")
        for index in range(3):
            up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(m)
            m = self.block(up + self.conv(features[2 - index], f"laterals.{index + 1}"), index)
        hidden = torch.clamp(self.conv(self.conv(m, "hidden.0", groups=24), "hidden.1"), min=0)
        return self.conv(hidden, "heatmap")


def pyramid(channels: tuple[int, ...], height: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, c, height >> level, width >> level, generator=generator, dtype=torch.float64)
        for level, c in enumerate(channels)
    ]


def test_fpn_head_equals_reference():
    channels = (5, 6, 7, 9)
    head = FPNHead(channels, 3).double().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in [*head.parameters(), *head.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1) if (tensor > 0).all() else tensor.normal_()
        features = pyramid(channels, 16, 8)
        heatmaps = head(features)
        assert heatmaps.shape == (2, 3, 16, 8)
        torch.testing.assert_close(heatmaps, ReferenceFPN(head)(features), rtol=1e-10, atol=1e-10)


def test_dynamic_fpn_head_has_one_static_layer():
    head = FPNHead((5, 6, 7, 9), 3, DynamicConvFactory(num_kernels=3))
    convs = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d | DynamicConv2d)]
    assert [layer for layer in convs if isinstance(layer, nn.Conv2d)] == [head.heatmap]
    assert len(convs) == 13
    assert all(layer.bias is not None for layer in head.laterals)
    assert head([map_.float() for map_ in pyramid((5, 6, 7, 9), 16, 8)]).shape == (2, 3, 16, 8)

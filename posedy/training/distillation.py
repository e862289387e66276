"""Knowledge distillation from a trained teacher network (Hinton et al., 2015)."""

import torch
from torch import Tensor

from posedy.config import Config
from posedy.export.fuse import fold_norms
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.models.pretrained import find_weights, load_checkpoint
from posedy.training.distributed import DistributedContext


class Teacher:
    """A trained network whose heatmaps are mixed into the targets of the student.

        target <- (1 - a) * target + a * heatmap

    Teacher and student get the same augmented crops (Beyer et al., CVPR 2022). Unlabeled keypoints keep weight 0 in the
    loss.

    Args:
        net: the network; a copy with folded norms is moved to the context's device.
        weight: a.
        context: device and precision of the teacher.
    """

    def __init__(self, net: PoseNet, weight: float, context: DistributedContext) -> None:
        self.net = fold_norms(net).to(context.device)
        self.weight = weight
        self._autocast = context.accelerator.autocast

    @torch.no_grad()
    def mix_targets(self, crops: Tensor, targets: Tensor) -> Tensor:
        """Returns targets (N, K, h, w) mixed with the teacher's heatmaps of crops (N, H, W, 3) uint8."""
        with self._autocast():
            heatmaps = self.net(normalize_crops(crops))
        return torch.lerp(targets, heatmaps.float(), self.weight)


def load_teacher(config: Config, student: PoseNet, context: DistributedContext) -> Teacher | None:
    """Loads the teacher of a configuration; None without `train.teacher`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file holds no network, or its heatmaps are incompatible with the student's.
    """
    if config.train.teacher is None:
        return None
    path = find_weights(config.train.teacher)
    net = load_checkpoint(path)
    differences = [
        f"{name} {teacher_value} in the file, {student_value} in the configuration"
        for name, teacher_value, student_value in (
            ("output", net.options["output"], student.options["output"]),
            ("codec", net.codec.name, student.codec.name),
            ("sigma", net.codec.target_sigma, student.codec.target_sigma),
            ("input_size", net.input_size, student.input_size),
            ("keypoints", _keypoints(net), _keypoints(student)),
        )
        if teacher_value != student_value
    ]
    if student.codec.output_names != ("heatmaps",):
        raise ValueError(f"train.teacher: expected a codec of heatmaps, got {student.codec.name!r}")
    if differences:
        raise ValueError(
            f"train.teacher: heatmaps of {path} are incompatible with {student.name}: {'; '.join(differences)}"
        )
    return Teacher(net, config.train.teacher_weight, context)


def _keypoints(net: PoseNet) -> tuple[str, ...] | int:
    return net.skeleton.keypoints if net.skeleton is not None else net.num_keypoints

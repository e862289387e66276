"""Knowledge distillation from a trained teacher network (Hinton et al., 2015)."""

from typing import Any

import torch
from torch import Tensor

from posedy.codecs import Codec
from posedy.config import Config
from posedy.export.fuse import fold_norms
from posedy.models.pose_net import PoseNet, name_outputs, normalize_crops
from posedy.models.pretrained import find_weights, load_checkpoint
from posedy.training.distributed import DistributedContext


class Teacher:
    """A trained network whose outputs are mixed into the targets of the student.

        target <- (1 - a) * target + a * output

    where the output is a heatmap, or the distributions of SimCC. Teacher and student get the same augmented crops
    (Beyer et al., CVPR 2022). Unlabeled keypoints keep weight 0 in the loss. If the student's codec has other outputs,
    the teacher's keypoints are decoded and encoded for the student; a keypoint of score s is mixed in with
    a * min(max(s, 0), 1), so that an uncertain one changes the target less.

    Args:
        net: the network; a copy with folded norms is moved to the context's device.
        weight: a.
        context: device and precision of the teacher.
        codec: the student's codec; None is the teacher's.
    """

    def __init__(self, net: PoseNet, weight: float, context: DistributedContext, codec: Codec | None = None) -> None:
        self.net = fold_norms(net).to(context.device)
        self.weight = weight
        self._autocast = context.accelerator.autocast
        self._codec = net.codec if codec is None else codec

    @torch.no_grad()
    def mix_targets(self, crops: Tensor, targets: Tensor) -> Tensor:
        """Returns targets (N, K, ...) mixed with the teacher's outputs for crops (N, H, W, 3) uint8."""
        codec = self.net.codec
        with self._autocast():
            outputs = name_outputs(self.net(normalize_crops(crops)), codec)
        outputs = {name: output.float() for name, output in outputs.items()}
        if codec.output_names == self._codec.output_names:
            soft = codec.soft_targets(outputs)
            if soft is not None:
                return torch.lerp(targets, soft, self.weight)
        keypoints, scores = codec.decode(outputs)
        decoded, inside = self._codec.encode(keypoints, torch.ones_like(scores))
        weights = self.weight * scores.clamp(0, 1) * inside
        return torch.lerp(targets, decoded, weights.reshape(*weights.shape, *[1] * (targets.ndim - 2)))


def load_teacher(config: Config, student: PoseNet, context: DistributedContext) -> Teacher | None:
    """Loads the teacher of a configuration; None without `train.teacher`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file holds no network, or its outputs are incompatible with the student's.
    """
    if config.train.teacher is None:
        return None
    path = find_weights(config.train.teacher)
    net = load_checkpoint(path)
    compared: list[tuple[str, Any, Any]] = [
        ("input_size", net.input_size, student.input_size),
        ("keypoints", _keypoints(net), _keypoints(student)),
    ]
    if net.codec.output_names == student.codec.output_names:
        compared += [
            ("output", net.options["output"], student.options["output"]),
            ("codec", net.codec.name, student.codec.name),
            ("sigma", net.codec.target_sigma, student.codec.target_sigma),
        ]
    differences = [
        f"{name} {teacher_value} in the file, {student_value} in the configuration"
        for name, teacher_value, student_value in compared
        if teacher_value != student_value
    ]
    if differences:
        raise ValueError(
            f"train.teacher: outputs of {path} are incompatible with {student.name}: {'; '.join(differences)}"
        )
    return Teacher(net, config.train.teacher_weight, context, student.codec)


def _keypoints(net: PoseNet) -> tuple[str, ...] | int:
    return net.skeleton.keypoints if net.skeleton is not None else net.num_keypoints

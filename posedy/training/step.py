"""One step of training: batch in, weights changed, loss out."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from posedy.codecs import HeatmapCodec
from posedy.config import TrainConfig
from posedy.data.loaders import Batch
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.training.distillation import Teacher
from posedy.training.distributed import Processes
from posedy.training.losses import heatmap_loss, loss_normalizer
from posedy.training.optim import WeightAverage


class TrainingStep:
    """Changes a network's weights by one batch after another.

    The step is that of the whole batch, whatever it is divided into: each part's loss is a sum, divided by what belongs
    to the whole batch, over all processes.

    Args:
        net: the network.
        optimizer: of its parameters.
        average: follows the network, if wanted.
        codec: draws the targets.
        config: loss, accumulation, clipping.
        processes: that share each batch.
        teacher: has a share in the targets, if there is one.
    """

    slow_steps: ClassVar[int] = 1
    """Steps at first that take longer than those to come."""

    def __init__(
        self,
        net: PoseNet,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
        codec: HeatmapCodec,
        config: TrainConfig,
        processes: Processes,
        teacher: Teacher | None = None,
    ) -> None:
        self.net = net
        self.average = average
        self.codec = codec
        self.config = config
        self.processes = processes
        self.teacher = teacher
        self._forward = net.forward
        self.wrapped_net, self.optimizer = processes.accelerator.prepare(net, optimizer)

    @contextmanager
    def without_autocast(self) -> Iterator[None]:
        """A block in which the network is called without the autocast that accelerate has put into its `forward`."""
        prepared = self.net.forward
        vars(self.net)["forward"] = self._forward
        try:
            yield
        finally:
            vars(self.net)["forward"] = prepared

    def begin_epoch(self) -> None:
        """Puts the network into training, but for frozen batch norms and those of frozen parts."""
        self.net.train()
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                is_frozen = module.affine and not module.weight.requires_grad
                if self.config.freeze_batch_norm or is_frozen:
                    module.eval()

    def __call__(self, batch: Batch, persons: int, rate: float) -> Tensor:
        """Makes a step.

        Args:
            batch: this process's part.
            persons: how many count in the batch of all processes.
            rate: learning rate.

        Returns:
            The loss of this process's part, a scalar on the device; the sum over processes is the batch's.
        """
        accelerator = self.processes.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        crops, targets, weights, normalizer = self.prepare(batch, persons)
        loss = torch.zeros((), device=self.processes.device)
        size = -(-len(crops) // self.config.accumulation)
        parts = list(zip(crops.split(size), targets.split(size), weights.split(size), strict=True))
        for index, (part, part_targets, part_weights) in enumerate(parts):
            is_last = index == len(parts) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.wrapped_net):
                heatmaps = self.wrapped_net(normalize_crops(part))
                part_loss = heatmap_loss(heatmaps, part_targets, part_weights, self.config.loss, normalizer)
                # gradients are averaged over processes, the loss is a sum over them
                accelerator.backward(part_loss * self.processes.count)
            loss = loss + part_loss.detach()
        if self.config.clip_gradients is not None:
            accelerator.clip_grad_norm_(self.net.parameters(), self.config.clip_gradients)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.net)
        return loss

    def prepare(self, batch: Batch, persons: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The crops of a batch, its targets, their weights and the loss's normalizer, on the device."""
        device = self.processes.device
        crops = batch["crop"].to(device, non_blocking=True)
        keypoints = batch["keypoints"].to(device, non_blocking=True)
        targets, weights = self.codec.encode(keypoints, batch["labeled"].to(device, non_blocking=True))
        normalizer = loss_normalizer(weights, targets, persons, self.config.loss)
        if self.config.loss != "mse":
            normalizer = self.processes.sum(normalizer)
        if self.teacher is not None:
            targets = self.teacher.mix(crops, targets)
        return crops, targets, weights, normalizer.clamp_min(1)

"""One training step: forward, loss, backward, optimizer step."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from posedy.codecs import Codec
from posedy.config import TrainConfig
from posedy.data.loaders import Batch
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.training.consistency import Consistency
from posedy.training.distillation import Teacher
from posedy.training.distributed import DistributedContext
from posedy.training.losses import codec_loss, loss_normalizer
from posedy.training.optim import ModelEMA


class TrainingStep:
    """Callable that updates a network's weights with one batch.

    The gradient is that of the whole batch, however it is split over processes and micro-batches: each loss is a sum,
    divided by the normalizer of the batch of all processes.

    Args:
        net: the network.
        optimizer: its optimizer.
        ema: its moving average, or None.
        codec: encodes the targets.
        config: loss, gradient accumulation and gradient clipping.
        context: the processes that share each batch.
        teacher: teacher whose heatmaps are mixed into the targets, or None.
        consistency: targets of the unlabeled persons of each batch, or None.
    """

    slow_steps: ClassVar[int] = 1
    """Number of initial steps that take longer than later ones."""

    def __init__(
        self,
        net: PoseNet,
        optimizer: torch.optim.Optimizer,
        ema: ModelEMA | None,
        codec: Codec,
        config: TrainConfig,
        context: DistributedContext,
        teacher: Teacher | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        self.net = net
        self.ema = ema
        self.codec = codec
        self.config = config
        self.context = context
        self.teacher = teacher
        self.consistency = consistency
        self._forward = net.forward
        self.wrapped_net, self.optimizer = context.accelerator.prepare(net, optimizer)

    @contextmanager
    def without_autocast(self) -> Iterator[None]:
        """Context manager that calls the network without the autocast that accelerate adds to its `forward`."""
        prepared = self.net.forward
        vars(self.net)["forward"] = self._forward
        try:
            yield
        finally:
            vars(self.net)["forward"] = prepared

    def set_train_mode(self) -> None:
        """Sets the network to training mode, except for frozen batch norms and batch norms of frozen modules."""
        self.net.train()
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                is_frozen = module.affine and not module.weight.requires_grad
                if self.config.freeze_batch_norm or is_frozen:
                    module.eval()

    def __call__(self, batch: Batch, num_samples: int, lr: float) -> Tensor:
        """Runs one step.

        Args:
            batch: this process's share of the batch.
            num_samples: persons that count in the batch of all processes.
            lr: learning rate.

        Returns:
            The loss of this process's share, a scalar on the device; the batch loss is the sum over processes.
        """
        accelerator = self.context.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        micro_batches = self._split(*self.prepare_batch(batch, num_samples))
        num_labeled = len(micro_batches)
        if self.consistency is not None:
            micro_batches += self._split(*self.consistency.prepare_batch(batch))
        loss = torch.zeros((), device=self.context.device)
        for index, (crops, targets, weights, normalizer) in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.wrapped_net):
                outputs = self.wrapped_net(normalize_crops(crops))
                micro_loss = codec_loss(self.codec, outputs, targets, weights, self.config.loss, normalizer)
                # gradients are averaged over processes, but the loss is a sum over them
                accelerator.backward(micro_loss * self.context.world_size)
            if self.consistency is not None:
                self.consistency.record_peaks(outputs, weights if index < num_labeled else None)
            loss = loss + micro_loss.detach()
        if self.config.clip_gradients is not None:
            accelerator.clip_grad_norm_(self.net.parameters(), self.config.clip_gradients)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.net)
        return loss

    def _split(
        self, crops: Tensor, targets: Tensor, weights: Tensor, normalizer: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Splits a batch into micro-batches with the normalizer of the whole batch."""
        size = -(-len(crops) // self.config.accumulation)
        parts = zip(crops.split(size), targets.split(size), weights.split(size), strict=True)
        return [(*tensors, normalizer) for tensors in parts]

    def prepare_batch(self, batch: Batch, num_samples: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the crops of a batch, their targets, the keypoint weights and the loss normalizer, on the device."""
        device = self.context.device
        crops = batch["crop"].to(device, non_blocking=True)
        keypoints = batch["keypoints"].to(device, non_blocking=True)
        targets, weights = self.codec.encode(keypoints, batch["labeled"].to(device, non_blocking=True))
        normalizer = loss_normalizer(
            self.codec, weights, targets, num_samples, self.config.loss, reduce=self.context.sum
        )
        if self.teacher is not None:
            targets = self.teacher.mix_targets(crops, targets)
        return crops, targets, weights, normalizer.clamp_min(1)

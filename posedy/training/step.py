"""One training step: forward, loss, backward, optimizer step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from posedy.codecs import Codec
from posedy.config import LoopConfig, TrainConfig
from posedy.data.loaders import Batch
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.training.consistency import Consistency
from posedy.training.distillation import Teacher
from posedy.training.distributed import DistributedContext
from posedy.training.losses import codec_loss, loss_normalizer
from posedy.training.optim import ModelEMA


class TrainingStep(ABC):
    """Callable that updates a network's weights with one batch.

    The gradient is that of the whole batch, however it is split over processes and micro-batches: each loss is a sum,
    divided by the normalizer of the batch of all processes.

    Args:
        net: the network.
        optimizer: its optimizer.
        ema: its moving average, or None.
        config: gradient accumulation and gradient clipping.
        context: the processes that share each batch.
    """

    slow_steps: ClassVar[int] = 1
    """Number of initial steps that take longer than later ones."""

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: ModelEMA | None,
        config: LoopConfig,
        context: DistributedContext,
    ) -> None:
        self.net: nn.Module = net
        self.ema = ema
        self.config = config
        self.context = context
        self._forward = net.forward
        self.wrapped_net, self.optimizer = context.accelerator.prepare(net, optimizer)

    @abstractmethod
    def losses(self, batch: Batch, num_samples: int) -> Sequence[Callable[[], Tensor]]:
        """Returns functions that compute the losses of the micro-batches; their sum is the loss of the share.

        Args:
            batch: this process's share of the batch.
            num_samples: samples that count in the batch of all processes.
        """

    def start_epoch(self, epoch: int) -> None:  # noqa: B027 - most steps need nothing
        """Prepares an epoch, counted from 0."""

    def end_epoch(self) -> dict[str, float]:
        """Returns the values of the epoch for additional columns of metrics.csv, by name."""
        return {}

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
            num_samples: samples that count in the batch of all processes.
            lr: learning rate.

        Returns:
            The loss of this process's share, a scalar on the device; the batch loss is the sum over processes.
        """
        accelerator = self.context.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        losses = self.losses(batch, num_samples)
        total = torch.zeros((), device=self.context.device)
        for index, compute_loss in enumerate(losses):
            is_last = index == len(losses) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.wrapped_net):
                loss = compute_loss()
                # gradients are averaged over processes, but the loss is a sum over them
                accelerator.backward(loss * self.context.world_size)
            total = total + loss.detach()
        if self.config.clip_gradients is not None:
            accelerator.clip_grad_norm_(self.net.parameters(), self.config.clip_gradients)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.net)
        return total

    def split(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Splits the tensors (N, ...) of a batch into those of its micro-batches."""
        size = -(-len(tensors[0]) // self.config.accumulation)
        return list(zip(*(tensor.split(size) for tensor in tensors), strict=True))


class PoseStep(TrainingStep):
    """A `TrainingStep` of a pose network.

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

    net: PoseNet
    config: TrainConfig

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
        super().__init__(net, optimizer, ema, config, context)
        self.codec = codec
        self.teacher = teacher
        self.consistency = consistency

    def start_epoch(self, epoch: int) -> None:
        """Prepares an epoch, counted from 0."""
        if self.consistency is not None:
            self.consistency.start_epoch(epoch)

    def end_epoch(self) -> dict[str, float]:
        """Returns the values of the epoch for additional columns of metrics.csv, by name."""
        return self.consistency.end_epoch() if self.consistency is not None else {}

    def losses(self, batch: Batch, num_samples: int) -> Sequence[Callable[[], Tensor]]:
        """Returns functions that compute the losses of the micro-batches, those of unlabeled persons last."""
        *tensors, normalizer = self.prepare_batch(batch, num_samples)
        losses = [partial(self._loss, part, normalizer, True) for part in self.split(*tensors)]
        if self.consistency is not None:
            *tensors, normalizer = self.consistency.prepare_batch(batch)
            losses += [partial(self._loss, part, normalizer, False) for part in self.split(*tensors)]
        return losses

    def _loss(self, tensors: tuple[Tensor, ...], normalizer: Tensor, is_labeled: bool) -> Tensor:
        crops, targets, weights = tensors
        outputs = self.wrapped_net(normalize_crops(crops))
        if self.consistency is not None:
            self.consistency.record_peaks(outputs, weights if is_labeled else None)
        return codec_loss(self.codec, outputs, targets, weights, self.config.loss, normalizer)

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

"""Training step captured as a CUDA graph, which launches its thousands of kernels at once.

For these networks a large GPU runs the kernels of a step faster than Python launches them. A graph stores addresses,
not values: inputs that change from step to step (normalized crops, targets, the learning rate) are copied into static
tensors before each replay.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posedy.codecs import Codec
from posedy.config import TrainConfig
from posedy.data.loaders import Batch
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.training.distillation import Teacher
from posedy.training.distributed import DistributedContext
from posedy.training.losses import codec_loss
from posedy.training.optim import ModelEMA
from posedy.training.step import PoseStep

_WARMUP_CALLS = 3


class GraphedStep(PoseStep):
    """A `PoseStep` that is captured as a CUDA graph and then replayed; needs a CUDA GPU and one process.

    Every call is one optimizer step, including the warm-up calls before the capture. A batch of another size, such as
    the last one of an epoch, runs as an ordinary step.
    """

    slow_steps: ClassVar[int] = _WARMUP_CALLS + 1

    def __init__(
        self,
        net: PoseNet,
        optimizer: torch.optim.Optimizer,
        ema: ModelEMA | None,
        codec: Codec,
        config: TrainConfig,
        context: DistributedContext,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__(net, optimizer, ema, codec, config, context, teacher)
        self._lr = torch.zeros((), device=context.device)
        self._inputs: list[Tensor] = []
        self._graphed_step = GraphedFunction(self._optimizer_step)

    def __call__(self, batch: Batch, num_samples: int, lr: float) -> Tensor:
        """Runs one step, see `PoseStep`."""
        if len(batch["crop"]) != self.config.batch_size:
            return super().__call__(batch, num_samples, lr)
        crops, *rest = self.prepare_batch(batch, num_samples)
        inputs = [self.net.match_channels(normalize_crops(crops)), *rest]
        if not self._inputs:
            self._inputs = [torch.empty_like(tensor) for tensor in inputs]
        for tensor, new in zip(self._inputs, inputs, strict=True):
            tensor.copy_(new)
        self._lr.fill_(lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        loss = self._graphed_step()
        if self.ema is not None:
            self.ema.update(self.net)
        return loss

    def _optimizer_step(self) -> Tensor:
        """Runs a step on `_inputs` with the learning rate `_lr`, clears the gradients and returns the loss."""
        images, targets, weights, normalizer = self._inputs
        is_mixed = self.config.precision == "bf16"
        # torch requires cache_enabled=False: a graph would replay weights cast before the capture.
        autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=is_mixed, cache_enabled=False)
        with self.without_autocast(), autocast:
            outputs = self.net(images)
        loss = codec_loss(self.codec, outputs, targets, weights, self.config.loss, normalizer)
        loss.backward()
        if self.config.clip_gradients is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip_gradients, foreach=True)
        with _lr_on_device(self.optimizer.param_groups, self._lr):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class GraphedFunction:
    """A function that runs eagerly for the first calls, is then captured as a CUDA graph and replayed.

    Every call does the work once; the capture itself does none. The eager calls run on a side stream, as torch
    requires, to initialize libraries and compile kernels.

    Args:
        function: uses the same tensors in each call, does not synchronize with the GPU, and returns a tensor.
    """

    def __init__(self, function: Callable[[], Tensor]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result = torch.empty(0)

    def __call__(self) -> Tensor:
        """Runs the function and returns a tensor that later calls do not overwrite."""
        if self._calls < _WARMUP_CALLS:
            self._calls += 1
            return self._call_on_side_stream()
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()
        return self._result.clone()

    def _call_on_side_stream(self) -> Tensor:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._function()
        current.wait_stream(self._stream)
        # keeps the memory from being reused before the caller's work on it is done
        result.record_stream(current)
        return result

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # The data loader's pinning thread calls CUDA during the capture, which mode "global" forbids.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._result = self._function()
        return graph


@contextmanager
def _lr_on_device(groups: Sequence[dict[str, Any]], lr: Tensor) -> Iterator[None]:
    """Makes an optimizer read its learning rate from the GPU, then restores the groups for checkpoints."""
    original = [{key: group[key] for key in ("lr", "capturable")} for group in groups]
    for group in groups:
        group.update(lr=lr * group["lr_factor"], capturable=True)
    try:
        yield
    finally:
        for group, values in zip(groups, original, strict=True):
            group.update(values)

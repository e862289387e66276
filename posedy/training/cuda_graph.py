"""A step of training recorded as a CUDA graph: its thousands of kernels are launched as one.

Python takes longer to launch the kernels of a step of these networks than a large GPU takes to run them. A graph holds
addresses, not values: what differs from step to step lies in tensors that stay where they are, and whatever would come
from the host (normalized crops, targets, the learning rate) is brought there before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posedy.codecs import HeatmapCodec
from posedy.config import TrainConfig
from posedy.data.loaders import Batch
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.training.distillation import Teacher
from posedy.training.distributed import Processes
from posedy.training.losses import heatmap_loss
from posedy.training.optim import WeightAverage
from posedy.training.step import TrainingStep

_WARM_UP = 3


class GraphedStep(TrainingStep):
    """A `TrainingStep` of one process on a CUDA GPU that is recorded once and then replayed.

    Each call is one step of the optimizer, also the first ones, which are not replayed yet. A batch of another size, as
    the last one of an epoch may be, makes an ordinary step.
    """

    slow_steps: ClassVar[int] = _WARM_UP + 1

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
        super().__init__(net, optimizer, average, codec, config, processes, teacher)
        self._rate = torch.zeros((), device=processes.device)
        self._inputs: list[Tensor] = []
        self._recorded = RecordedFunction(self._change_weights)

    def __call__(self, batch: Batch, persons: int, rate: float) -> Tensor:
        """Makes a step, see `TrainingStep`."""
        if len(batch["crop"]) != self.config.batch_size:
            return super().__call__(batch, persons, rate)
        crops, *rest = self.prepare(batch, persons)
        inputs = [self.net.match_channels(normalize_crops(crops)), *rest]
        if not self._inputs:
            self._inputs = [torch.empty_like(tensor) for tensor in inputs]
        for tensor, new in zip(self._inputs, inputs, strict=True):
            tensor.copy_(new)
        self._rate.fill_(rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        loss = self._recorded()
        if self.average is not None:
            self.average.update(self.net)
        return loss

    def _change_weights(self) -> Tensor:
        """The step on `_inputs` at `_rate`, which leaves no gradients; returns the loss."""
        images, targets, weights, normalizer = self._inputs
        is_mixed = self.config.precision == "bf16"
        # As torch asks for: a weight that was cast before the recording would stay what it was then.
        autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=is_mixed, cache_enabled=False)
        with self.without_autocast(), autocast:
            heatmaps = self.net(images)
        loss = heatmap_loss(heatmaps, targets, weights, self.config.loss, normalizer)
        loss.backward()
        if self.config.clip_gradients is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip_gradients, foreach=True)
        with _rate_from_device(self.optimizer.param_groups, self._rate):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class RecordedFunction:
    """Calls a function the first few times, then records what it does on the GPU and replays that.

    Each call does the work once, since recording alone does none. The first calls, as torch asks for, let libraries set
    themselves up and kernels be compiled, on a stream of their own.

    Args:
        function: works on the same tensors each time, asks nothing of the GPU's results, and returns a tensor.
    """

    def __init__(self, function: Callable[[], Tensor]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result = torch.empty(0)

    def __call__(self) -> Tensor:
        """Does the work; the result belongs to the caller."""
        if self._calls < _WARM_UP:
            self._calls += 1
            return self._call_aside()
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()
        return self._result.clone()

    def _call_aside(self) -> Tensor:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._function()
        current.wait_stream(self._stream)
        # its memory may be used again only after what the caller does with it
        result.record_stream(current)
        return result

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # The thread that pins memory for coming batches calls CUDA meanwhile, which "global" forbids.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._result = self._function()
        return graph


@contextmanager
def _rate_from_device(groups: Sequence[dict[str, Any]], rate: Tensor) -> Iterator[None]:
    """Lets an optimizer read its rate from the GPU; afterward its groups are plain again, as checkpoints keep them."""
    plain = [{key: group[key] for key in ("lr", "capturable")} for group in groups]
    for group in groups:
        group.update(lr=rate * group["lr_factor"], capturable=True)
    try:
        yield
    finally:
        for group, values in zip(groups, plain, strict=True):
            group.update(values)

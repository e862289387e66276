"""Batches of training crops: which samples an epoch's batches have, for each process, and their loading."""

from collections.abc import Generator, Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from posedy.data.datasets import SampleIndex, TopDownTrainDataset, set_up_worker

Batch = dict[str, Tensor]


class EpochBatchSampler:
    """Who comes when in an epoch: a function of (seed, epoch) alone.

    A batch has `batch_size` persons over all ranks, the last one what is left; every rank gets equally many of each
    batch, where it does not divide with draws that do not count.

    Args:
        size: persons of an epoch.
        batch_size: persons of a batch over all ranks, a multiple of `world_size`.
        seed: of the order.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """The number of batches."""
        return -(-self.size // self.batch_size)

    def persons(self, step: int) -> int:
        """How many persons the batch of a step has over all ranks."""
        return min(self.batch_size, self.size - step * self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> list[list[SampleIndex]]:
        """This rank's part of the batches of an epoch from the batch `start` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        batches = []
        for step in range(start, len(self)):
            persons = order[step * self.batch_size : (step + 1) * self.batch_size]
            draws = [SampleIndex(epoch, int(index)) for index in persons]
            draws += [SampleIndex(epoch, int(order[0]), counts=False)] * (-len(draws) % self.world_size)
            batches.append(draws[self.rank :: self.world_size])
        return batches


class _Tasks(Sampler[list[SampleIndex]]):
    """What workers are asked for, set anew where needed: a DataLoader with lasting workers keeps its sampler."""

    def __init__(self) -> None:
        self.tasks: Iterable[list[SampleIndex]] = ()

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return iter(self.tasks)


class CropLoader:
    """Feeds training: worker processes that stay, make crops and hand them over as batches.

    At the end of an epoch workers go on with the next one, so that its first batches are there when it begins.

    Args:
        crops: the training set.
        order: the batches of each epoch.
        workers: processes that make crops; 0 makes them in this one.
        pin_memory: whether batches lie in memory that a GPU copies from by itself.
    """

    def __init__(
        self, crops: TopDownTrainDataset, order: EpochBatchSampler, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.order = order
        self._tasks = _Tasks()
        self._loader: DataLoader[Any] = DataLoader(
            crops,
            batch_sampler=self._tasks,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=set_up_worker,
        )
        self._stream: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # the epoch and the step of its next batch

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self.order)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from the batch `start` on, as `TopDownTrainDataset` makes them, stacked."""
        if self._next != (epoch, start):
            self._tasks.tasks = self._from(epoch, start)
            self._stream = iter(self._loader)
        for step in range(start, len(self)):
            batch = next(self._stream)
            self._next = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
            yield batch

    def _from(self, epoch: int, start: int) -> Iterator[list[SampleIndex]]:
        """All batches from one on, epoch after epoch without end."""
        yield from self.order.batches(epoch, start)
        for later in count(epoch + 1):
            yield from self.order.batches(later)

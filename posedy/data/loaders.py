"""Batch sampling and data loading for training, resumable at any batch and equal on any number of ranks."""

from collections.abc import Generator, Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from posedy.data.datasets import SampleIndex, TopDownTrainDataset, set_up_worker

Batch = dict[str, Tensor]


class EpochBatchSampler:
    """Batches of a random permutation that depends on (seed, epoch) alone.

    A batch has `batch_size` samples over all ranks, the last batch of an epoch the remainder. All ranks get equally
    many samples of each batch; padding samples fill up a batch that the ranks cannot share equally.

    Args:
        size: number of samples of an epoch.
        batch_size: number of samples of a batch over all ranks, a multiple of `world_size`.
        seed: seed of the permutations.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return -(-self.size // self.batch_size)

    def num_samples(self, step: int) -> int:
        """Returns the number of samples of a step's batch over all ranks, without padding."""
        return min(self.batch_size, self.size - step * self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> list[list[SampleIndex]]:
        """Returns this rank's share of the batches of an epoch, from batch `start` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        batches = []
        for step in range(start, len(self)):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            batch = [SampleIndex(epoch, int(index)) for index in indices]
            batch += [SampleIndex(epoch, int(order[0]), is_padding=True)] * (-len(batch) % self.world_size)
            batches.append(batch[self.rank :: self.world_size])
        return batches


class _ReplaceableBatches(Sampler[list[SampleIndex]]):
    """A batch sampler with replaceable batches, since a DataLoader with persistent workers keeps its sampler."""

    def __init__(self) -> None:
        self.batches: Iterable[list[SampleIndex]] = ()

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return iter(self.batches)


class CropLoader:
    """A data loader for training with persistent worker processes.

    At the end of an epoch, workers continue with the next one, so that its first batches are ready when it begins.

    Args:
        dataset: the training set.
        sampler: the batches of each epoch.
        workers: number of worker processes; 0 loads in this process.
        pin_memory: whether batches are copied to pinned memory, for faster transfer to a GPU.
    """

    def __init__(
        self, dataset: TopDownTrainDataset, sampler: EpochBatchSampler, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.sampler = sampler
        self._batches = _ReplaceableBatches()
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._batches,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=set_up_worker,
        )
        self._stream: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # epoch and step of the stream's next batch

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return len(self.sampler)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of an epoch from batch `start` on: stacked samples of `TopDownTrainDataset`."""
        if self._next != (epoch, start):
            self._batches.batches = self._batches_from(epoch, start)
            self._stream = iter(self._loader)
        for step in range(start, len(self)):
            batch = next(self._stream)
            self._next = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
            yield batch

    def _batches_from(self, epoch: int, start: int) -> Iterator[list[SampleIndex]]:
        """Yields batches from a given one on, epoch after epoch without end."""
        yield from self.sampler.batches(epoch, start)
        for later in count(epoch + 1):
            yield from self.sampler.batches(later)

"""Batch sampling and data loading for training, resumable at any batch and equal on any number of ranks."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from posedy.data.datasets import SampleIndex, set_up_worker

Batch = dict[str, Tensor]

SHUFFLED_SHARDS = 16
"""Size of the shuffle buffer in shards of mean size."""


def shuffle_shards(sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Permutes the samples of shards such that neighbors lie in few shards, as a stream with a shuffle buffer does.

    The shards are permuted, and each sample moves by at most the size of the buffer, `SHUFFLED_SHARDS` shards. Samples
    of at most that many shards are permuted without a limit.

    Args:
        sizes: (S,) number of samples of each shard.
        rng: the random generator.

    Returns:
        (N,) indices of all samples.
    """
    total = int(sizes.sum())
    if len(sizes) <= SHUFFLED_SHARDS:
        return rng.permutation(total)
    ends = np.cumsum(sizes)
    stream = np.concatenate(
        [np.arange(ends[shard] - sizes[shard], ends[shard]) for shard in rng.permutation(len(ends))]
    )
    buffer = SHUFFLED_SHARDS * total / len(sizes)
    return stream[np.argsort(np.arange(total) + rng.uniform(0, buffer, total))]


@dataclass(eq=False)
class EpochBatchSampler:
    """Batches of a random permutation that depends on (seed, epoch) alone.

    A batch has `batch_size` samples over all ranks, the last batch of an epoch the remainder. All ranks get equally
    many samples of each batch; padding samples fill up a batch that the ranks cannot share equally.

    Attributes:
        size: number of samples of an epoch.
        batch_size: number of samples of a batch over all ranks, a multiple of `world_size`.
        seed: seed of the permutations.
        rank: rank of this process.
        world_size: number of processes.
        shard_sizes: (S,) number of samples of each shard, to permute as `shuffle_shards`; None permutes all samples.
    """

    size: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    shard_sizes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return -(-self.size // self.batch_size)

    def num_samples(self, step: int) -> int:
        """Returns the number of samples of a step's batch over all ranks, without padding."""
        return min(self.batch_size, self.size - step * self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> list[list[SampleIndex]]:
        """Returns this rank's share of the batches of an epoch, from batch `start` on."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.size) if self.shard_sizes is None else shuffle_shards(self.shard_sizes, rng)
        batches = []
        for step in range(start, len(self)):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            batch = [SampleIndex(epoch, int(index)) for index in indices]
            batch += [SampleIndex(epoch, int(order[0]), is_padding=True)] * (-len(batch) % self.world_size)
            batches.append(batch[self.rank :: self.world_size])
        return batches


@dataclass(eq=False)
class MixedBatchSampler(EpochBatchSampler):
    """Batches of labeled samples, each with a batch of unlabeled ones, for `MixedDataset`.

    Unlabeled batches are consecutive parts of an endless sequence of permutations, which does not end with an epoch of
    the labeled samples. The batch of a step depends on (seed, epoch, step) alone.

    Attributes:
        size: number of labeled samples of an epoch; see `EpochBatchSampler`, also for the other positional arguments,
            which are those of labeled samples.
        unlabeled_size: number of unlabeled samples.
        unlabeled_batch_size: number of unlabeled samples of a batch over all ranks, a multiple of `world_size`.
    """

    _: KW_ONLY
    unlabeled_size: int
    unlabeled_batch_size: int

    def batches(self, epoch: int, start: int = 0) -> list[list[SampleIndex]]:
        """Returns this rank's share of the batches of an epoch, from batch `start` on."""
        orders: dict[int, NDArray[np.int64]] = {}
        batches = super().batches(epoch, start)
        for step, batch in enumerate(batches, start=epoch * len(self) + start):
            first = step * self.unlabeled_batch_size
            for position in range(first + self.rank, first + self.unlabeled_batch_size, self.world_size):
                unlabeled_epoch, place = divmod(position, self.unlabeled_size)
                if unlabeled_epoch not in orders:
                    rng = np.random.default_rng((self.seed, unlabeled_epoch, 1))
                    orders[unlabeled_epoch] = rng.permutation(self.unlabeled_size)
                index = int(orders[unlabeled_epoch][place])
                batch.append(SampleIndex(unlabeled_epoch, index, is_unlabeled=True))
        return batches


def collate_samples(samples: list[dict[str, Any]]) -> Batch:
    """Stacks samples; the keys of labeled and unlabeled samples differ, and a batch of both has all of them."""
    unlabeled = [sample for sample in samples if "easy_crop" in sample]
    if not unlabeled:
        return default_collate(samples)
    return default_collate(samples[: len(samples) - len(unlabeled)]) | default_collate(unlabeled)


class _ReplaceableBatches(Sampler[list[SampleIndex]]):
    """A batch sampler with replaceable batches, since a DataLoader with persistent workers keeps its sampler."""

    def __init__(self) -> None:
        self.batches: Iterable[list[SampleIndex]] = ()

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return iter(self.batches)


class SampleLoader:
    """A data loader for training with persistent worker processes.

    At the end of an epoch, workers continue with the next one, so that its first batches are ready when it begins.

    Args:
        dataset: the training set.
        sampler: the batches of each epoch, a `MixedBatchSampler` for a `MixedDataset`.
        workers: number of worker processes; 0 loads in this process.
        pin_memory: whether batches are copied to pinned memory, for faster transfer to a GPU.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: EpochBatchSampler,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.sampler = sampler
        self._batches = _ReplaceableBatches()
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._batches,
            collate_fn=collate_samples,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=set_up_worker,
            generator=torch.Generator(),  # otherwise each epoch and each resuming draws from that of dropout
        )
        self._stream: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # epoch and step of the stream's next batch

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return len(self.sampler)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of an epoch from batch `start` on: stacked samples of the dataset."""
        if self._next != (epoch, start):
            self._batches.batches = _batches_from(self.sampler, epoch, start)
            self._stream = iter(self._loader)
        for step in range(start, len(self)):
            batch = next(self._stream)
            self._next = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
            yield batch


def _batches_from(sampler: EpochBatchSampler, epoch: int, start: int) -> Iterator[list[SampleIndex]]:
    """Yields batches from a given one on, epoch after epoch without end.

    It is no method of the loader: a loader that its own iterator refers to is freed by garbage collection only, after
    the queues of its workers, for which torch then waits five seconds each.
    """
    yield from sampler.batches(epoch, start)
    for later in count(epoch + 1):
        yield from sampler.batches(later)

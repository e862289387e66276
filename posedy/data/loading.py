"""Batches of training crops: who comes when, in which process, and how it gets to the device."""

from collections.abc import Generator, Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from posedy.data.datasets import Draw, TrainingCrops, set_up_worker

_PERSONS_PER_TASK = 16  # what a worker makes at a time where photos share their decoding

Batch = dict[str, Tensor]


class EpochOrder:
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

    def batches(self, epoch: int, start: int = 0) -> list[list[Draw]]:
        """This rank's part of the batches of an epoch from the batch `start` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        batches = []
        for step in range(start, len(self)):
            persons = order[step * self.batch_size : (step + 1) * self.batch_size]
            draws = [Draw(epoch, int(index)) for index in persons]
            draws += [Draw(epoch, int(order[0]), counts=False)] * (-len(draws) % self.world_size)
            batches.append(draws[self.rank :: self.world_size])
        return batches


class PhotoOrder(EpochOrder):
    """An order in which the persons of a photo are near to each other, but not in the same batch.

    Photos come in random order, all persons of a photo together; from this stream a buffer is filled, and a random one
    of the buffer comes next. Each rank has a part of the stream, and so another order for another number of ranks.

    Args:
        photo_of: (P,) the photo of each person.
        batch_size: as above.
        seed: as above.
        buffer: persons that it holds, on each rank.
        rank: as above.
        world_size: as above.
    """

    def __init__(
        self,
        photo_of: NDArray[np.int64],
        batch_size: int,
        seed: int,
        buffer: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(len(photo_of), batch_size, seed, rank, world_size)
        self.photo_of = photo_of
        self.buffer = buffer

    def stream(self, epoch: int) -> list[Draw]:
        """This rank's persons, photo by photo: the order in which photos are read."""
        place = np.random.default_rng((self.seed, epoch)).permutation(int(self.photo_of.max()) + 1)
        by_photo = np.argsort(place[self.photo_of], kind="stable")
        parts = np.array_split(by_photo, self.world_size)
        draws = [Draw(epoch, int(index)) for index in parts[self.rank]]
        return draws + [Draw(epoch, int(by_photo[0]), counts=False)] * (len(parts[0]) - len(draws))

    def batches(self, epoch: int, start: int = 0) -> list[list[Draw]]:
        """This rank's part of the batches of an epoch from the batch `start` on."""
        stream = self.stream(epoch)
        random = np.random.default_rng((self.seed, epoch, self.rank)).random(len(stream))
        held: list[Draw] = []
        order: list[Draw] = []
        for draw in stream:
            if draw.counts:
                held.append(draw)
            if len(held) > self.buffer:
                order.append(_take(held, random[len(order)]))
        while held:
            order.append(_take(held, random[len(order)]))
        order += [draw for draw in stream if not draw.counts]
        share = self.batch_size // self.world_size
        return [order[begin : begin + share] for begin in range(start * share, len(order), share)]


def _take(held: list[Draw], random: float) -> Draw:
    """Takes one out of a list, which does not keep its order."""
    index = int(random * len(held))
    held[index], held[-1] = held[-1], held[index]
    return held.pop()


class _Tasks(Sampler[list[Draw]]):
    """What workers are asked for, set anew where needed: a DataLoader with lasting workers keeps its sampler."""

    def __init__(self) -> None:
        self.tasks: Iterable[list[Draw]] = ()

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.tasks)


class CropLoader:
    """Feeds training: worker processes that stay, make crops and hand them over as batches.

    At the end of an epoch workers go on with the next one, so that its first batches are there when it begins.

    Args:
        crops: the training set.
        order: who comes when; with a `PhotoOrder` the persons of a photo share its decoding.
        workers: processes that make crops; 0 makes them in this one.
        pin_memory: whether batches lie in memory that a GPU copies from by itself.
    """

    def __init__(self, crops: TrainingCrops, order: EpochOrder, workers: int = 0, pin_memory: bool = False) -> None:
        self.order = order
        self._pin_memory = pin_memory
        self._tasks = _Tasks()
        self._loader: DataLoader[Any] = DataLoader(
            crops,
            batch_sampler=self._tasks,
            num_workers=workers,
            # crops that wait in a shuffle buffer are pinned once they are a batch
            pin_memory=pin_memory and not isinstance(order, PhotoOrder),
            persistent_workers=workers > 0,
            worker_init_fn=set_up_worker,
        )
        self._stream: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # the epoch and the step of its next batch

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self.order)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from the batch `start` on, as `TrainingCrops` makes them, stacked."""
        if isinstance(self.order, PhotoOrder):
            yield from self._photo_by_photo(epoch, start)
            return
        if self._next != (epoch, start):
            self._tasks.tasks = self._from(epoch, start)
            self._stream = iter(self._loader)
        for step in range(start, len(self)):
            batch = next(self._stream)
            self._next = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
            yield batch

    def _from(self, epoch: int, start: int) -> Iterator[list[Draw]]:
        """All batches from one on, epoch after epoch without end."""
        yield from self.order.batches(epoch, start)
        for later in count(epoch + 1):
            yield from self.order.batches(later)

    def _photo_by_photo(self, epoch: int, start: int) -> Iterator[Batch]:
        """Batches of a `PhotoOrder`: made photo by photo, handed over in the order of the batches."""
        assert isinstance(self.order, PhotoOrder)
        batches = self.order.batches(epoch, start)
        wanted = {draw for batch in batches for draw in batch}
        tasks = _tasks_between_photos(
            [draw for draw in self.order.stream(epoch) if draw in wanted], self.order.photo_of
        )
        self._tasks.tasks = tasks
        made = zip(tasks, self._loader, strict=True)
        waiting: dict[Draw, Batch] = {}
        for batch in batches:
            while not waiting.keys() >= set(batch):
                draws, stacked = next(made)
                # copied, or the shared memory of a whole task would stay open for its last person
                copied = {name: values.clone() for name, values in stacked.items()}
                for row, draw in enumerate(draws):
                    waiting[draw] = {name: values[row] for name, values in copied.items()}
            samples = [waiting[draw] for draw in batch]
            for draw in set(batch):
                del waiting[draw]
            together = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
            yield {name: values.pin_memory() for name, values in together.items()} if self._pin_memory else together


def _tasks_between_photos(stream: list[Draw], photo_of: NDArray[np.int64]) -> list[list[Draw]]:
    """Cuts a stream into tasks for workers, between photos."""
    tasks: list[list[Draw]] = []
    for draw in stream:
        full = not tasks or len(tasks[-1]) >= _PERSONS_PER_TASK
        if full and (not tasks or photo_of[tasks[-1][-1].person] != photo_of[draw.person]):
            tasks.append([])
        tasks[-1].append(draw)
    return tasks

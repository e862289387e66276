"""How fast an epoch goes: time that waits for data and time that computes, persons, memory."""

import time
from collections.abc import Iterable, Iterator

from posedy.data.loading import Batch


class Meter:
    """A stop watch around the batches of an epoch."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.waited = 0.0
        self.persons = 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Hands batches on and counts the time until each is there."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.began

    @property
    def persons_per_second(self) -> float:
        """Over all processes."""
        return self.persons / self.seconds

    @property
    def data_share(self) -> float:
        """The part of the time that went into waiting for data, from 0 to 1."""
        return self.waited / self.seconds


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"

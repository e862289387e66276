"""Background threads with short queues: prefetching of inputs and processing of outputs."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
FRAME_QUEUE_SIZE = 4
"""Frames of a video between two threads."""
_POLL_INTERVAL = 0.1  # seconds after which a blocked thread checks whether it was closed


class Prefetcher(Generic[T]):
    """Iterator that computes items ahead in a background thread; errors are raised by the iteration.

    Args:
        items: the items to compute.
        queue_size: maximum number of items in the queue.
        drops: whether the oldest item is dropped while the queue is full, instead of waiting.

    Attributes:
        dropped: number of items that were dropped.
    """

    def __init__(self, items: Iterable[T], queue_size: int, drops: bool = False) -> None:
        self._drops = drops
        self.dropped = 0
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(queue_size)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        """Yields the items in order."""
        while True:
            received = self._queue.get()
            if received is None:
                return
            if isinstance(received, BaseException):
                raise received
            yield received[0]

    def close(self) -> None:
        """Stops the thread after its current item, and waits for it."""
        self._closed.set()
        self._thread.join()

    def _run(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        """Puts an item into the queue; returns False if the prefetcher was closed instead."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0 if self._drops else _POLL_INTERVAL)
            except queue.Full:
                if self._drops:
                    with suppress(queue.Empty):
                        self._queue.get_nowait()
                        self.dropped += 1
                continue
            return True
        return False


class Worker(Generic[T]):
    """Background thread that processes items in order.

    Args:
        process: called with each item.
        queue_size: maximum number of items in the queue.
    """

    def __init__(self, process: Callable[[T], None], queue_size: int) -> None:
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(queue_size)
        self._error: BaseException | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._run, args=(process,), daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queues an item, blocking while the queue is full; items after an error are discarded.

        Raises:
            BaseException: the error of an earlier item, once.
        """
        self._queue.put((item,))
        self._raise_error()

    def close(self) -> None:
        """Waits until all items are processed.

        Raises:
            BaseException: the error of an item, unless `put` raised it.
        """
        self._queue.put(None)
        try:
            self._thread.join()
        except (KeyboardInterrupt, SystemExit):
            self._thread.join()  # the caller closes files next: the thread must not be writing
            raise
        self._raise_error()

    def _run(self, process: Callable[[T], None]) -> None:
        while (item := self._queue.get()) is not None:
            if not self._failed:
                try:
                    process(item[0])
                except BaseException as error:  # raised in the thread that calls put or close
                    self._error, self._failed = error, True

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

"""Work in the background with short queues: what comes next is read ahead, what is done is taken away."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_UP = 0.1  # seconds after which a waiting thread looks whether it is still needed


class ReadAhead(Generic[T]):
    """Iterates over something in a thread of its own, a few items ahead; its errors come out of the iteration.

    Args:
        items: what to iterate over.
        ahead: how many items wait at most.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(items,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        """The items."""
        while True:
            found = self._queue.get()
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield found[0]

    def close(self) -> None:
        """Stops after the item that is being made, and waits for that."""
        self._closed.set()
        self._thread.join()

    def _work(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        """Whether there was still somebody to take it."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_UP)
            except queue.Full:
                continue
            return True
        return False


class Worker(Generic[T]):
    """Does something with each item in a thread of its own; a few items wait at most.

    Args:
        work: what to do with an item.
        waiting: how many items wait at most.
    """

    def __init__(self, work: Callable[[T], None], waiting: int) -> None:
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hands an item over, once there is room; after an error nothing more is done.

        Raises:
            BaseException: what the work raised before, once.
        """
        self._queue.put((item,))
        self._raise()

    def close(self) -> None:
        """Waits until all is done.

        Raises:
            BaseException: what the work raised, unless it was raised before.
        """
        self._queue.put(None)
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self._thread.join()  # files are closed after this: the thread must not be writing
            raise
        self._raise()

    def _run(self, work: Callable[[T], None]) -> None:
        while (item := self._queue.get()) is not None:
            if not self._failed:
                try:
                    work(item[0])
                except BaseException as error:  # for the thread that hands items over
                    self._error, self._failed = error, True

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

import threading
import time
from collections.abc import Iterator

import pytest

from posedy.inference.threads import Prefetcher, Worker


def test_prefetcher_yields_items_in_order_and_limits_queue() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    prefetcher = Prefetcher(items(), 3)
    time.sleep(0.3)
    assert len(made) <= 5
    assert list(prefetcher) == list(range(20))
    prefetcher.close()


def test_prefetcher_of_a_live_source_drops_the_oldest_items() -> None:
    prefetcher = Prefetcher(iter(range(100)), 3, drops=True)
    time.sleep(0.2)
    assert list(prefetcher) == [98, 99]  # and the mark of the end
    assert prefetcher.dropped == 98
    prefetcher.close()


def test_prefetcher_raises_error_after_earlier_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("disconnected")

    prefetcher = Prefetcher(items(), 3)
    received = []
    with pytest.raises(OSError, match="disconnected"):
        received.extend(prefetcher)
    prefetcher.close()


def test_prefetcher_close_stops_thread() -> None:
    before = threading.active_count()
    prefetcher = Prefetcher(iter(range(1000)), 2)
    assert next(iter(prefetcher)) == 0
    prefetcher.close()
    assert threading.active_count() == before


def test_worker_processes_items_in_order_and_close_waits() -> None:
    done: list[int] = []
    worker: Worker[int] = Worker(lambda item: (time.sleep(0.005), done.append(item))[1], 2)
    for number in range(20):
        worker.put(number)
    worker.close()
    assert done == list(range(20))


def test_worker_raises_error_in_caller_once() -> None:
    done: list[int] = []

    def process(item: int) -> None:
        if item == 1:
            raise ValueError("invalid")
        done.append(item)

    worker = Worker(process, 2)
    worker.put(0)
    worker.put(1)
    time.sleep(0.2)
    with pytest.raises(ValueError, match="invalid"):
        worker.put(2)
    worker.put(3)
    worker.close()
    assert done == [0]  # items after the error are discarded
    second = Worker(process, 2)
    second.put(1)
    with pytest.raises(ValueError, match="invalid"):
        second.close()

import threading
import time
from collections.abc import Iterator

import pytest

from posedy.inference.threads import ReadAhead, Worker


def test_items_come_in_order_and_a_few_ahead() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    ahead = ReadAhead(items(), 3)
    time.sleep(0.3)
    assert len(made) <= 5
    assert list(ahead) == list(range(20))
    ahead.close()


def test_an_error_of_the_items_comes_out_after_them() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("cable")

    ahead = ReadAhead(items(), 3)
    taken = []
    with pytest.raises(OSError, match="cable"):
        taken.extend(ahead)
    ahead.close()


def test_closing_early_ends_the_thread() -> None:
    before = threading.active_count()
    ahead = ReadAhead(iter(range(1000)), 2)
    assert next(iter(ahead)) == 0
    ahead.close()
    assert threading.active_count() == before


def test_work_is_done_in_order_and_waited_for() -> None:
    done: list[int] = []
    worker: Worker[int] = Worker(lambda item: (time.sleep(0.005), done.append(item))[1], 2)
    for number in range(20):
        worker.put(number)
    worker.close()
    assert done == list(range(20))


def test_an_error_of_the_work_reaches_who_hands_over() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 1:
            raise ValueError("full")
        done.append(item)

    worker = Worker(work, 2)
    worker.put(0)
    worker.put(1)
    time.sleep(0.2)
    with pytest.raises(ValueError, match="full"):
        worker.put(2)
    worker.put(3)
    worker.close()
    assert done == [0]  # nothing after the error
    last = Worker(work, 2)
    last.put(1)
    with pytest.raises(ValueError, match="full"):
        last.close()

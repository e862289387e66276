"""Ctrl-C lets the step finish; a second one does not wait."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from posedy.training.interrupt import TrainingInterruptedError, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible() as interruption:
        assert not interruption.asked
        os.kill(os.getpid(), number)
        assert interruption.asked
    assert signal.getsignal(number) is before


@pytest.fixture
def default_handler() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which a process started in the background may lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_the_second_interrupts_at_once() -> None:
    with interruptible() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_of_the_main_thread_nothing_is_caught() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[bool] = []

    def work() -> None:
        with interruptible() as interruption:
            seen.append(interruption.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) is before


def test_it_is_an_error_that_the_command_line_shows() -> None:
    assert issubclass(TrainingInterruptedError, OSError)
    assert str(TrainingInterruptedError("stopped")) == "stopped"

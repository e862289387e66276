"""Ctrl-C that lets the step finish."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class TrainingInterruptedError(InterruptedError):
    """Training was stopped by the user; a checkpoint has been written."""


class Interruption:
    """Whether the user has asked to stop."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Turns the first Ctrl-C (or SIGTERM) into `Interruption.asked`; the second one interrupts at once.

    Does nothing outside of the main thread, where signals cannot be caught.
    """
    interruption = Interruption()
    handlers: dict[int, Any] = {}
    owner = os.getpid()

    def note(number: int, frame: Any) -> None:
        if os.getpid() != owner:  # a worker process that has inherited the handler
            return
        interruption.asked = True
        signal.signal(number, handlers[number])
        tqdm.write("stopping after this step ...")

    try:
        for caught in (signal.SIGINT, signal.SIGTERM):
            handlers[caught] = signal.signal(caught, note)
    except ValueError:
        handlers.clear()
    try:
        yield interruption
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

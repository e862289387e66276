"""Graceful handling of Ctrl-C and SIGTERM: the current step finishes first."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class TrainingInterruptedError(InterruptedError):
    """Training was stopped by the user; a checkpoint has been written."""


class StopSignal:
    """Records whether the user has requested to stop."""

    received = False


@contextmanager
def catch_stop_signals() -> Iterator[StopSignal]:
    """Context manager that records Ctrl-C and SIGTERM; the second Ctrl-C interrupts at once.

    Further SIGTERMs are ignored: SLURM and torchrun both send one to each process.

    Does nothing outside the main thread, where signals cannot be handled.
    """
    stop_signal = StopSignal()
    previous_handlers: dict[int, Any] = {}
    main_pid = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() != main_pid:  # a worker process that inherited the handler
            return
        is_first, stop_signal.received = not stop_signal.received, True  # before the output, which takes longer
        if is_first:
            tqdm.write("stopping after the current step ...")
        if number == signal.SIGINT:
            signal.signal(number, previous_handlers[number])

    try:
        for caught in (signal.SIGINT, signal.SIGTERM):
            previous_handlers[caught] = signal.signal(caught, handle)
    except ValueError:
        previous_handlers.clear()
    try:
        yield stop_signal
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)

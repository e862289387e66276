"""Ctrl-C while files are written: the first one ends the work, and none ends the finishing of the files."""

import signal
import threading
from collections.abc import Callable
from typing import Any, Self


class InterruptGuard:
    """Context manager in which Ctrl-C raises KeyboardInterrupt once, and not after `close`; SIGHUP is handled alike.

    Users press Ctrl-C again if they see no effect, which must not lose the files that are being finished. Outside the
    main thread, where signals cannot be handled, it does nothing.

    Attributes:
        is_interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.is_interrupted = False
        self._is_closed = False
        self._previous: dict[int, Callable[[int, Any], Any]] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGHUP"):
                number = getattr(signal, name, None)  # no SIGHUP on Windows
                previous = None if number is None else signal.getsignal(number)
                if number is not None and callable(previous):  # not if it is ignored, as by jobs in the background
                    self._previous[number] = previous
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the handlers of the signals."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def close(self) -> None:
        """Keeps later signals from raising KeyboardInterrupt."""
        self._is_closed = True

    def _handle(self, number: int, frame: Any) -> None:
        try:
            if not self._is_closed or number != signal.SIGINT:  # the handler of SIGHUP drops what is printed
                self._previous[number](number, frame)
        except KeyboardInterrupt:
            if not self._is_closed:
                self.is_interrupted = self._is_closed = True  # here, as a second signal may follow at once
                raise
        self.is_interrupted = True

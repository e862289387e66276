"""Progress of bulk prediction: a bar on a terminal, a line each minute elsewhere."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

_INTERVAL = 60.0  # seconds between lines


class BulkProgress:
    """Shows images per second, persons per second and the time left.

    Args:
        total: number of images to predict.
        report: called with lines of text, where standard error is no terminal.
        is_shown: whether to show progress at all.
    """

    def __init__(self, total: int, report: Callable[[str], None], is_shown: bool = True) -> None:
        self._total = total
        self._report = report
        self._shows_lines = is_shown and (sys.stderr is None or not sys.stderr.isatty())  # None: it is closed
        self._bar = tqdm(total=total, unit="image", disable=not is_shown or self._shows_lines)
        self._began = self._last_line = time.monotonic()
        self._images = self._persons = self._failed = 0

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def advance(self, images: int, persons: int, failed: int) -> None:
        """Counts images that are done, the failed ones among them, and the persons on the others."""
        self._images += images
        self._persons += persons
        self._failed += failed
        self._bar.update(images)
        self._bar.set_postfix_str(
            f"{self._persons / self.seconds:.1f} persons/s" + (f", {self._failed} failed" if self._failed else "")
        )
        if self._shows_lines and time.monotonic() - self._last_line >= _INTERVAL:
            self._last_line = time.monotonic()
            left = (self._total - self._images) * self.seconds / self._images
            self._report(
                f"{self._images} of {self._total} images, {self.describe_rate()}, "
                f"{tqdm.format_interval(left)} left" + (f", {self._failed} failed" if self._failed else "")
            )

    def describe_rate(self) -> str:
        """Returns the images and persons per second as text."""
        seconds = max(self.seconds, 1e-9)
        return f"{self._images / seconds:.1f} images/s, {self._persons / seconds:.1f} persons/s"

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()

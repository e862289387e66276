"""Progress of bulk prediction: a bar on a terminal, a line each minute elsewhere."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from posedy.poses import count_persons, format_count

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

    def advance(self, images: int, persons: int, failed: int) -> None:
        """Counts images that are done, the failed ones among them, and the persons on the others."""
        self._images += images
        self._persons += persons
        self._failed += failed
        self._bar.update(images)
        failed_text = f", {self._failed} failed" if self._failed else ""
        self._bar.set_postfix_str(f"{self._persons / self._seconds:.1f} persons/s{failed_text}")
        if self._shows_lines and time.monotonic() - self._last_line >= _INTERVAL:
            self._last_line = time.monotonic()
            left = tqdm.format_interval((self._total - self._images) * self._seconds / self._images)
            self._report(f"{self._images} of {self._total} images, {self._rate}, {left} left{failed_text}")

    def describe(self) -> str:
        """Returns the persons and images that are done, without the failed ones, and their time."""
        images = format_count(self._images - self._failed, "image")
        return f"{count_persons(self._persons)} on {images} in {self._seconds:.1f} s: {self._rate}"

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def _rate(self) -> str:
        seconds = max(self._seconds, 1e-9)
        return f"{self._images / seconds:.1f} images/s, {self._persons / seconds:.1f} persons/s"

    def close(self) -> None:
        """Closes the progress bar."""
        self._bar.close()

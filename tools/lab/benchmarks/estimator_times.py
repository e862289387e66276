"""Prints the seconds of calls of a `PoseEstimator` as JSON; `estimator.py` runs this file for several checkouts.

It imports nothing else of this checkout, and only the public interface of posedy.
"""

import json
import statistics
import sys
import time

import numpy as np

import posedy

_SECONDS_PER_MEASUREMENT = 1.0  # approximate


def main() -> None:
    """Times calls with boxes on an image of noise: `estimator_times.py MODEL PERSONS...`."""
    model, *persons = sys.argv[1:]
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    seconds = {}
    for flip in (False, True):
        estimator = posedy.PoseEstimator(model, flip=flip)
        for count in map(int, persons):
            boxes = [[60.0 * index, 20.0, 60.0 * index + 150, 420.0] for index in range(count)]
            estimator(image, boxes)
            estimator(image, boxes)
            times = []
            begin = time.perf_counter()
            while time.perf_counter() - begin < _SECONDS_PER_MEASUREMENT:
                start = time.perf_counter()
                estimator(image, boxes)
                times.append(time.perf_counter() - start)
            seconds[f"{count} {'flip test' if flip else 'no flip test'}"] = statistics.median(times) / count
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

"""Smoothing of keypoints over time (Casiez et al., CHI 2012: the one-euro filter)."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


class OneEuroFilter:
    """Low-pass filter whose cutoff rises with speed: little jitter at rest, little lag in motion.

        x^ = x^ + a (x - x^),    a = 1 / (1 + tau / dt),    tau = 1 / (2 pi f),    f = min_cutoff + beta |v^|

    with the speed v^ of each keypoint low-passed in the same way at a cutoff of its own.

    Args:
        min_cutoff: in Hz, of keypoints at rest; lower is smoother.
        beta: in Hz per size/s; higher follows fast motion closer. Speeds are in sizes of the person per second. At the
            default under half of the jitter is left, and they lag a little over a frame (`python -m
            tools.lab.benchmarks video`).
        speed_cutoff: in Hz, of the speed.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 2.0, speed_cutoff: float = 1.0) -> None:
        if min(min_cutoff, speed_cutoff) <= 0 or beta < 0:
            raise ValueError(f"cutoffs are positive and beta not negative, got {min_cutoff}, {speed_cutoff} and {beta}")
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self._time: float | None = None
        self._points: NDArray[np.float64] = np.zeros((0, 2))
        self._speed: NDArray[np.float64] = np.zeros((0, 2))

    def __call__(self, points: ArrayLike, time: float, size: float) -> NDArray[np.float64]:
        """The smoothed keypoints.

        Args:
            points: (K, 2) in image pixels.
            time: in seconds, later than the last one.
            size: of the person in pixels, which speeds are measured in.

        Raises:
            ValueError: if time does not advance, or another number of keypoints comes.
        """
        points = np.asarray(points, dtype=np.float64)
        if self._time is None:
            self._time, self._points, self._speed = time, points, np.zeros_like(points)
            return points.copy()
        if points.shape != self._points.shape:
            raise ValueError(f"the filter began with points {self._points.shape}, got {points.shape}")
        dt = time - self._time
        if dt <= 0:
            raise ValueError(f"time must advance, got {time} s after {self._time} s")
        speed = (points - self._points) / dt
        self._speed = self._speed + _weight(self.speed_cutoff, dt) * (speed - self._speed)
        cutoff = self.min_cutoff + self.beta * np.linalg.norm(self._speed, axis=-1, keepdims=True) / max(size, 1.0)
        self._points = self._points + _weight(cutoff, dt) * (points - self._points)
        self._time = time
        return self._points.copy()


def _weight(cutoff: ArrayLike, dt: float) -> NDArray[np.float64]:
    return 1 / (1 + 1 / (2 * math.pi * np.asarray(cutoff, dtype=np.float64) * dt))

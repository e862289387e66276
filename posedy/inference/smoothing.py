"""Smoothing of keypoints over time (one-euro filter; Casiez et al., CHI 2012)."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


class OneEuroFilter:
    """Low-pass filter with a speed-dependent cutoff: little jitter at rest, little lag in motion.

        x^ = x^ + a (x - x^),    a = 1 / (1 + tau / dt),    tau = 1 / (2 pi f),    f = min_cutoff + beta |v^|

    with the velocity v^ of each keypoint low-passed in the same way at a cutoff of its own.

    Args:
        min_cutoff: cutoff in Hz at rest; lower is smoother.
        beta: increase of the cutoff in Hz per size/s; higher lags less in fast motion. Speeds are in person sizes per
            second. The default removes more than half of the jitter at a lag of about 1.5 frames (`python -m
            tools.lab.benchmarks smoothing`).
        speed_cutoff: cutoff in Hz for the velocity.

    Raises:
        ValueError: if a cutoff is not positive or beta is negative.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 2.0, speed_cutoff: float = 1.0) -> None:
        if min(min_cutoff, speed_cutoff) <= 0 or beta < 0:
            raise ValueError(
                f"expected positive cutoffs and a non-negative beta, got min_cutoff={min_cutoff}, "
                f"speed_cutoff={speed_cutoff}, beta={beta}"
            )
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self._time: float | None = None
        self._keypoints: NDArray[np.float64] = np.zeros((0, 2))
        self._velocity: NDArray[np.float64] = np.zeros((0, 2))

    def __call__(self, keypoints: ArrayLike, time: float, size: float) -> NDArray[np.float64]:
        """Smooths the keypoints of the next frame.

        Args:
            keypoints: (K, 2) in image pixels.
            time: time in seconds, later than in the last call.
            size: size of the person in pixels.

        Returns:
            Smoothed keypoints (K, 2).

        Raises:
            ValueError: if time does not advance, or the number of keypoints changes.
        """
        keypoints = np.asarray(keypoints, dtype=np.float64)
        if self._time is None:
            self._time, self._keypoints, self._velocity = time, keypoints, np.zeros_like(keypoints)
            return keypoints.copy()
        if keypoints.shape != self._keypoints.shape:
            raise ValueError(f"expected keypoints of shape {self._keypoints.shape} as before, got {keypoints.shape}")
        dt = time - self._time
        if dt <= 0:
            raise ValueError(f"time must advance, got {time} s after {self._time} s")
        velocity = (keypoints - self._keypoints) / dt
        self._velocity = self._velocity + _gain(self.speed_cutoff, dt) * (velocity - self._velocity)
        cutoff = self.min_cutoff + self.beta * np.linalg.norm(self._velocity, axis=-1, keepdims=True) / max(size, 1.0)
        self._keypoints = self._keypoints + _gain(cutoff, dt) * (keypoints - self._keypoints)
        self._time = time
        return self._keypoints.copy()


def _gain(cutoff: ArrayLike, dt: float) -> NDArray[np.float64]:
    return 1 / (1 + 1 / (2 * math.pi * np.asarray(cutoff, dtype=np.float64) * dt))

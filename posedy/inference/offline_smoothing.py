"""Offline smoothing of whole tracks, without lag: smoothing splines over the confident keypoints, and filled gaps."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import solveh_banded

from posedy.drawing import DRAW_THRESHOLD
from posedy.inference.track_table import TrackTable

_TIME_TOLERANCE = 1e-4  # seconds, the rounding of times in files
_MIN_STEP = 1e-3  # minimum time between samples, in frames: splines need times that increase


@dataclass(frozen=True)
class OfflineSmoothing:
    """The settings of `smooth_tracks`; the defaults were chosen with `python -m tools.lab.benchmarks smoothing`.

    Attributes:
        cutoff: frequency in Hz of which half the amplitude remains; lower is smoother.
        max_gap: longest time in seconds between two confident keypoints over which the ones between are filled.
        min_score: keypoints with scores up to this one are outliers.
        max_shift: longest distance by which a confident keypoint is moved, in person sizes, which is the longer side of
            the person's box.

    Raises:
        ValueError: if a value is out of range; the message names it.
    """

    cutoff: float = 5.0
    max_gap: float = 0.25
    min_score: float = DRAW_THRESHOLD
    max_shift: float = 0.15

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cutoff) and self.cutoff > 0):
            raise ValueError(f"expected a cutoff of more than 0 Hz, got {self.cutoff}")
        for name in ("max_gap", "min_score", "max_shift"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"expected a {name} of at least 0, got {getattr(self, name)}")


def smooth_tracks(table: TrackTable, settings: OfflineSmoothing | None = None) -> TrackTable:
    """Smooths the keypoints of whole tracks over time without lag, and fills short gaps.

    For each coordinate y of a keypoint, at the times t_i at which its score s_i is above `min_score`, the smoothed
    curve f is the natural cubic spline that minimizes

        sum_i w_i (y_i - f(t_i))^2 + lambda integral f''(t)^2 dt,    lambda = 1 / (dt (2 pi f_c)^4)

    with the weights w_i = s_i / mean(s), the time dt between frames and the cutoff f_c. This is the Kalman smoother
    (Rauch, Tung and Striebel) of a random acceleration with measurement noise of variance 1 / w_i (Wahba, JRSS B 1978).
    For frames at a constant rate and equal scores its frequency response is that of a second-order Butterworth filter
    run forward and backward, 1 / (1 + (f / f_c)^4), as is usual in gait analysis; it has no lag and is the same for a
    reversed track.

    A curve ends where there is no confident keypoint for more than `max_gap`. Other keypoints between two confident
    ones are replaced by the curve and flagged in `filled`, and a person who is absent for at most `max_gap` gets rows
    with interpolated boxes. Scores of what is filled are the lower ones of the two neighbors. Keypoints with low scores
    beyond these remain unchanged, and so do ids and the boxes and scores of what was measured.

    Args:
        table: the tracks, not yet smoothed.
        settings: the cutoff and the limits; None for the defaults.

    Returns:
        A new table with all rows of the given one, moved by at most `max_shift`, and rows for filled gaps.

    Raises:
        TypeError: if the table is not a `TrackTable`.
    """
    if not isinstance(table, TrackTable):
        raise TypeError(f"expected a posedy.TrackTable, got {table!r:.100}: TrackTable.from_poses makes one of poses")
    settings = settings or OfflineSmoothing()
    max_gap = settings.max_gap + _TIME_TOLERANCE
    table = _fill_absences(table, max_gap)
    keypoints, scores, filled = table.keypoints.copy(), table.scores.copy(), table.filled.copy()
    sizes = (table.boxes[:, 2:] - table.boxes[:, :2]).max(axis=1, initial=0)
    dt = 1 / table.rate
    # in frames, for well-conditioned equations
    times = table.times / dt
    least = _MIN_STEP * np.arange(len(times))
    times = np.maximum.accumulate(times - least) + least
    lam = 1 / (2 * math.pi * settings.cutoff * dt) ** 4
    for _, rows in table.tracks():
        t = times[table.row_frames[rows]]
        for k in range(table.skeleton.num_keypoints):
            confident = np.flatnonzero((table.scores[rows, k] > settings.min_score) & ~table.filled[rows, k])
            ends = np.flatnonzero(np.diff(t[confident]) * dt > max_gap) + 1
            for measured in np.split(confident, ends):
                if len(measured) < 2:
                    continue
                inside = np.arange(measured[0], measured[-1] + 1)
                values, weights = table.keypoints[rows[measured], k], table.scores[rows[measured], k]
                curve = _fit_curve(t[measured], values, weights / weights.mean(), lam, t[inside])
                keypoints[rows[inside], k] = curve
                keypoints[rows[measured], k] = _limit_shift(
                    values, keypoints[rows[measured], k], settings.max_shift * sizes[rows[measured]]
                )
                gaps = np.setdiff1d(inside, measured)
                after = np.searchsorted(measured, gaps)
                scores[rows[gaps], k] = np.minimum(weights[after - 1], weights[after])
                filled[rows[gaps], k] = True
    return replace(table, keypoints=keypoints, scores=scores, filled=filled)


def _fit_curve(
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    lam: float,
    at: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the smoothing spline of values (N, D) at N increasing times, evaluated at M times within: (M, D).

    The natural cubic spline has the values g and the second derivatives c of Reinsch's algorithm (Green and Silverman,
    Nonparametric Regression and Generalized Linear Models, 1994, section 2.3):

        (R + lambda Q^T W^-1 Q) c = Q^T y,    g = y - lambda W^-1 Q c
    """
    if len(times) < 3:
        return np.stack([np.interp(at, times, column) for column in values.T], axis=1)
    h = np.diff(times)
    # the three bands of Q, whose column j has rows j to j + 2
    upper, lower = 1 / h[:-1], 1 / h[1:]
    center = -(upper + lower)
    noise = lam / weights
    bands = np.zeros((3, len(center)))
    bands[0] = upper**2 * noise[:-2] + center**2 * noise[1:-1] + lower**2 * noise[2:] + (h[:-1] + h[1:]) / 3
    bands[1, :-1] = center[:-1] * upper[1:] * noise[1:-2] + lower[:-1] * center[1:] * noise[2:-1] + h[1:-1] / 6
    bands[2, :-2] = lower[:-2] * upper[2:] * noise[2:-2]
    slopes = np.diff(values, axis=0) / h[:, None]
    curvature = solveh_banded(bands, np.diff(slopes, axis=0), lower=True)
    change = np.zeros_like(values)
    for first, band in enumerate((upper, center, lower)):
        change[first : first + len(band)] += band[:, None] * curvature
    return CubicSpline(times, values - noise[:, None] * change, bc_type="natural")(at)


def _limit_shift(
    before: NDArray[np.float64], after: NDArray[np.float64], limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the points (N, 2) after smoothing, at a distance of at most a limit (N,) from those before."""
    shift = after - before
    distance = np.linalg.norm(shift, axis=1)
    return before + shift * np.minimum(1, limits / np.maximum(distance, 1e-9))[:, None]


def _fill_absences(table: TrackTable, max_gap: float) -> TrackTable:
    """Returns a table with linearly interpolated rows for persons who are absent for at most `max_gap` seconds."""
    parts: list[dict[str, NDArray]] = [{name: getattr(table, name) for name in _ROW_ARRAYS}]
    for track_id, rows in table.tracks():
        frames = table.row_frames[rows]
        times = table.times[frames]
        for gap in np.flatnonzero((np.diff(frames) > 1) & (np.diff(times) <= max_gap)):
            absent = np.arange(frames[gap] + 1, frames[gap + 1])
            a, b = rows[gap], rows[gap + 1]
            share = (absent - frames[gap]) / (frames[gap + 1] - frames[gap])
            if times[gap + 1] > times[gap]:
                share = (table.times[absent] - times[gap]) / (times[gap + 1] - times[gap])
            part: dict[str, NDArray] = {"row_frames": absent, "track_ids": np.full(len(absent), track_id)}
            for name in ("keypoints", "boxes"):
                values = getattr(table, name)
                part[name] = values[a] + share.reshape(-1, *[1] * (values.ndim - 1)) * (values[b] - values[a])
            for name in ("scores", "box_scores", "pose_scores"):
                values = getattr(table, name)
                part[name] = np.repeat(np.minimum(values[a], values[b])[None], len(absent), axis=0)
            part["filled"] = np.ones((len(absent), table.skeleton.num_keypoints), np.bool_)
            parts.append(part)
    columns: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in _ROW_ARRAYS}
    order = np.argsort(columns["row_frames"], kind="stable")
    return replace(table, **{name: values[order] for name, values in columns.items()})


_ROW_ARRAYS = (
    *("row_frames", "track_ids", "keypoints", "scores", "filled"),
    *("boxes", "box_scores", "pose_scores"),
)

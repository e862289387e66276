"""COCO keypoint results: a list with one record per predicted person, read, checked and written."""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posedy.data.coco_file import Record, load_file, value_of
from posedy.data.findings import FindingLog, short
from posedy.data.tables import BoolArray, number_column, number_rows
from posedy.files import write_json_atomically
from posedy.geometry import xyxy_to_xywh


def to_coco_results(
    image_id: int,
    keypoints: ArrayLike,
    keypoint_scores: ArrayLike,
    scores: ArrayLike,
    category_id: int = 1,
    boxes: ArrayLike | None = None,
) -> list[dict[str, Any]]:
    """The poses of one image as COCO keypoint results, in full float precision.

    Args:
        image_id: the id that the annotation file gives the image.
        keypoints: (P, K, 2) in image pixels.
        keypoint_scores: (P, K), written where COCO's annotations have the visibility.
        scores: (P,) by which COCOeval ranks the poses.
        category_id: the id of the annotation file's category with keypoints.
        boxes: (P, 4) xyxy in image pixels, written as `bbox` (xywh). COCOeval then takes a pose's size from its box
            instead of from the extent of its keypoints, which moves APm and APl: published numbers are without boxes.

    Returns:
        P records of Python numbers.

    Raises:
        ValueError: if shapes do not fit together or a number is not finite; the message names the pose.
    """
    keypoints, keypoint_scores, scores = (
        np.asarray(value, dtype=np.float64) for value in (keypoints, keypoint_scores, scores)
    )
    if keypoints.ndim != 3 or keypoints.shape[2] != 2:
        raise ValueError(f"keypoints must have shape (P, K, 2), got {keypoints.shape}")
    if keypoint_scores.shape != keypoints.shape[:2] or scores.shape != keypoints.shape[:1]:
        raise ValueError(
            f"keypoints of shape {keypoints.shape} need keypoint scores of shape {keypoints.shape[:2]} and scores of "
            f"shape {keypoints.shape[:1]}, got {keypoint_scores.shape} and {scores.shape}"
        )
    triplets = np.concatenate([keypoints, keypoint_scores[..., None]], axis=-1).reshape(
        len(keypoints), 3 * keypoints.shape[1]
    )
    results: list[dict[str, Any]] = [
        {"image_id": int(image_id), "category_id": int(category_id), "keypoints": triplet, "score": score}
        for triplet, score in zip(triplets.tolist(), scores.tolist(), strict=True)
    ]
    if boxes is not None:
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.shape != (len(keypoints), 4):
            raise ValueError(f"{len(keypoints)} poses need boxes of shape ({len(keypoints)}, 4), got {boxes.shape}")
        for result, box in zip(results, xyxy_to_xywh(boxes).tolist(), strict=True):
            result["bbox"] = box
    check_results(results, source=f"image {image_id}")
    return results


def check_results(results: Any, num_keypoints: int | None = None, source: str = "results") -> None:
    """Checks that a value is a list of COCO keypoint results; keys beyond the needed four are allowed.

    Args:
        results: what came, for instance out of a JSON file.
        num_keypoints: the K that every entry must have; without it every entry must have as many as the first.
        source: what the results are called in errors.

    Raises:
        CocoFileError: naming the source and the bad entries.
    """
    log = FindingLog()
    if not isinstance(results, list):
        what = "an annotation file" if isinstance(results, Mapping) and "annotations" in results else "no list"
        log.error(
            "the value is not a list of keypoint results",
            f"{source} is {what}: it holds a {type(results).__name__}",
            "Keypoint results are a list of entries with image_id, category_id, keypoints and score.",
        )
        log.raise_errors(source)
    records = as_records(results, log)
    log.raise_errors(source)
    for key in ("image_id", "category_id"):
        values = [record.get(key) for record in records]
        bad = np.array([isinstance(value, bool) or not isinstance(value, Real | str) for value in values], dtype=bool)
        log_invalid_entries(log, records, key, bad, "Write an id, a number or text.")
    scores, bad = number_column([record.get("score") for record in records])
    log_invalid_entries(log, records, "score", bad | ~np.isfinite(scores), "Write a finite number.")
    _check_result_keypoints(records, num_keypoints, log)
    log.raise_errors(source)


def read_results(path: str | Path, num_keypoints: int | None = None) -> list[dict[str, Any]]:
    """Reads a COCO keypoint results file as it is, but for masks under `segmentation`, which are left out.

    Args:
        path: a JSON file.
        num_keypoints: the K that every entry must have; without it every entry must have as many as the first.

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if it is not JSON or not a list of keypoint results; the message names the file and the entries.
    """
    results: list[dict[str, Any]] = load_file(path)
    check_results(results, num_keypoints, source=str(path))
    return results


def write_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes keypoint results as a COCO results file, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
        CocoFileError: if an entry is not a keypoint result, or a number is NaN or infinite.
    """
    results = list(results)
    check_results(results, source=str(path))
    write_json_atomically(path, results)


def _check_result_keypoints(records: Sequence[Record], num_keypoints: int | None, log: FindingLog) -> None:
    """Logs entries whose keypoints are not a flat list of finite numbers, three for each of K keypoints."""
    values = [record.get("keypoints") for record in records]
    lengths = [len(value) if isinstance(value, list | tuple | np.ndarray) else 0 for value in values]
    if num_keypoints is None:
        num_keypoints = max(1, lengths[0] // 3) if lengths else 1
    rows, bad = number_rows(values, 3 * num_keypoints)
    advice = f"Write a flat list of {3 * num_keypoints} finite numbers: x, y, score for each keypoint."

    def describe(index: int) -> str:
        length = f" of length {lengths[index]}" if lengths[index] else ""
        return f"entry {index}: {value_of(records[index], 'keypoints')}{length}"

    log.add("error", "entry without valid 'keypoints'", np.flatnonzero(bad), describe, advice)
    finite = np.isfinite(rows).reshape(len(records), num_keypoints, 3).all(axis=-1)
    log.add(
        "error",
        "keypoint that is not finite",
        np.argwhere(~finite & ~bad[:, None]),
        lambda where: f"entry {where[0]}: keypoint {where[1]}",
        advice,
    )


def as_records(entries: Sequence[Any], log: FindingLog) -> Sequence[Record]:
    """The entries of a list; those that are not objects are logged, and the caller raises them."""
    log.add(
        "error",
        "entry that is not an object",
        [index for index, entry in enumerate(entries) if not isinstance(entry, Mapping)],
        lambda index: f"entry {index} is {short(entries[index])}",
        "Each entry is a JSON object; remove or repair it.",
    )
    return entries


def log_invalid_entries(log: FindingLog, records: Sequence[Record], key: str, bad: BoolArray, advice: str) -> None:
    """Logs the entries (N,) of a list that have no valid value of a key."""
    log.add(
        "error",
        f"entry without a valid '{key}'",
        np.flatnonzero(bad),
        lambda index: f"entry {index}: {value_of(records[index], key)}",
        advice,
    )

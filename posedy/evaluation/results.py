"""COCO keypoint results: a list with one record per predicted person."""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posedy.data.tables import load_json
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
        ValueError: if shapes do not fit together or a number is not finite.
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
        ValueError: naming the source and the index of the first bad entry.
    """
    if isinstance(results, Mapping) and "annotations" in results:
        raise ValueError(
            f"{source}: this is an annotation file (a dictionary with 'annotations'), not keypoint results, which are "
            f"a list of entries with image_id, category_id, keypoints and score"
        )
    if not isinstance(results, list):
        raise ValueError(f"{source}: keypoint results are a list of entries, got a {type(results).__name__}")
    for index, entry in enumerate(results):
        where = f"{source}, entry {index}"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where}: an entry is a dictionary, got {_shown(entry)}")
        for key in ("image_id", "category_id", "keypoints", "score"):
            if key not in entry:
                raise ValueError(f"{where}: has no '{key}'; its keys are {sorted(map(str, entry))}")
        for key in ("image_id", "category_id"):
            if isinstance(entry[key], bool) or not isinstance(entry[key], Real | str):
                raise ValueError(f"{where}: {key} must be an id, got {_shown(entry[key])}")
        score = entry["score"]
        if isinstance(score, bool) or not isinstance(score, Real) or not np.isfinite(float(score)):
            raise ValueError(f"{where}: score must be a finite number, got {_shown(score)}")
        length = _checked_keypoints(entry["keypoints"], where)
        if num_keypoints is None:
            num_keypoints = length // 3
        if length != 3 * num_keypoints:
            raise ValueError(
                f"{where}: keypoints must be {3 * num_keypoints} numbers (x, y, score for each of {num_keypoints} "
                f"keypoints), got {length}"
            )


def read_results(path: str | Path, num_keypoints: int | None = None) -> list[dict[str, Any]]:
    """Reads a COCO keypoint results file as it is, but for masks under `segmentation`, which are left out.

    Args:
        path: a JSON file.
        num_keypoints: the K that every entry must have; without it every entry must have as many as the first.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not JSON or not a list of keypoint results; the message names the file and the entry.
    """
    path = Path(path)
    try:
        results = load_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: is not a JSON file ({error})") from error
    check_results(results, num_keypoints, source=str(path))
    return results


def write_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes keypoint results as a COCO results file, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if an entry is not a keypoint result, or a number is NaN or infinite.
    """
    results = list(results)
    check_results(results, source=str(path))
    write_json_atomically(path, results)


def _checked_keypoints(keypoints: Any, where: str) -> int:
    """The length of an entry's keypoints, which must be finite numbers, three for each keypoint."""
    try:
        values = np.asarray(keypoints)
    except ValueError:  # a ragged list
        values = np.asarray(None)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iuf":
        raise ValueError(f"{where}: keypoints must be a flat list of numbers x, y, score, got {_shown(keypoints)}")
    if values.size % 3:
        raise ValueError(f"{where}: keypoints must be three numbers (x, y, score) each, got {values.size} numbers")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"{where}: keypoint {bad[0] // 3} is not finite, got {values[bad[0]]}")
    return int(values.size)


def _shown(value: Any) -> str:
    """A value as errors show it: not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Reading, validation and writing of COCO keypoint results: a list with one record per predicted person."""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from posedy.data.coco_file import Record, format_value, load_file
from posedy.data.issues import IssueLog, short_repr
from posedy.data.tables import BoolArray, number_column, number_rows
from posedy.files import write_json_atomically


def check_results(results: Any, num_keypoints: int | None = None, source: str = "results") -> None:
    """Checks that a value is a list of COCO keypoint results; further keys in entries are allowed.

    Args:
        results: the value, for instance the content of a JSON file.
        num_keypoints: the required K; None requires as many keypoints as the first entry has.
        source: the name of the results in error messages.

    Raises:
        CocoFileError: if it is not; the message names the source and the invalid entries.
    """
    log = IssueLog()
    if not isinstance(results, list):
        is_annotations = isinstance(results, Mapping) and "annotations" in results
        given = "an annotation file" if is_annotations else f"a {type(results).__name__}"
        log.error(
            "not a list of keypoint results",
            f"{source}: expected a list, got {given}",
            "Keypoint results are a list of entries with image_id, category_id, keypoints and score.",
        )
        log.raise_errors(source)
    records = validate_records(results, log)
    log.raise_errors(source)
    for key in ("image_id", "category_id"):
        values = [record.get(key) for record in records]
        bad = np.array([isinstance(value, bool) or not isinstance(value, Real | str) for value in values], dtype=bool)
        log_invalid_entries(log, records, key, bad, "Write an id: a number or text.")
    scores, bad = number_column([record.get("score") for record in records])
    log_invalid_entries(log, records, "score", bad | ~np.isfinite(scores), "Write a finite number.")
    _check_result_keypoints(records, num_keypoints, log)
    log.raise_errors(source)


def read_results(path: str | Path, num_keypoints: int | None = None) -> list[dict[str, Any]]:
    """Reads a COCO keypoint results file, without masks in `segmentation`.

    Args:
        path: a JSON file.
        num_keypoints: the required K; None requires as many keypoints as the first entry has.

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if it is not JSON or not a list of keypoint results; the message names the file and the
            invalid entries.
    """
    results: list[dict[str, Any]] = load_file(path)
    check_results(results, num_keypoints, source=str(path))
    return results


def write_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes keypoint results as a COCO results file, atomically.

    Raises:
        OSError: if the file cannot be written.
        CocoFileError: if an entry is not a keypoint result, or a number is NaN or infinite.
    """
    results = list(results)
    check_results(results, source=str(path))
    write_json_atomically(path, results)


def _check_result_keypoints(records: Sequence[Record], num_keypoints: int | None, log: IssueLog) -> None:
    """Logs entries whose keypoints are not a flat list of 3 * K finite numbers."""
    values = [record.get("keypoints") for record in records]
    lengths = [len(value) if isinstance(value, list | tuple | np.ndarray) else 0 for value in values]
    if num_keypoints is None:
        num_keypoints = max(1, lengths[0] // 3) if lengths else 1
    rows, bad = number_rows(values, 3 * num_keypoints)
    advice = f"Write a flat list of {3 * num_keypoints} finite numbers: x, y, score for each keypoint."

    def describe(index: int) -> str:
        length = f" of length {lengths[index]}" if lengths[index] else ""
        return f"entry {index}: {format_value(records[index], 'keypoints')}{length}"

    log.add("error", "entry without valid 'keypoints'", np.flatnonzero(bad), describe, advice)
    finite = np.isfinite(rows).reshape(len(records), num_keypoints, 3).all(axis=-1)
    log.add(
        "error",
        "keypoint not finite",
        np.argwhere(~finite & ~bad[:, None]),
        lambda where: f"entry {where[0]}: keypoint {where[1]}",
        advice,
    )


def validate_records(entries: Sequence[Any], log: IssueLog) -> Sequence[Record]:
    """Returns the entries of a list unchanged; those that are not objects are logged, for the caller to raise."""
    log.add(
        "error",
        "entry is not an object",
        [index for index, entry in enumerate(entries) if not isinstance(entry, Mapping)],
        lambda index: f"entry {index} is {short_repr(entries[index])}",
        "Each entry must be a JSON object: fix or remove it.",
    )
    return entries


def log_invalid_entries(log: IssueLog, records: Sequence[Record], key: str, bad: BoolArray, advice: str) -> None:
    """Logs the entries of the mask `bad` (N,), which have no valid value of a key."""
    log.add(
        "error",
        f"entry without a valid '{key}'",
        np.flatnonzero(bad),
        lambda index: f"entry {index}: {format_value(records[index], key)}",
        advice,
    )

"""Reading, validation and writing of COCO keypoint results: a list with one record per predicted person."""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from posedy.data.coco_file import Record, format_value, load_file
from posedy.data.issues import CocoFileError, IssueLog, short_repr
from posedy.data.tables import BoolArray, number_column, number_rows
from posedy.files import write_json_atomically

_WRITE_RESULTS = (
    "`posedy test CONFIG --checkpoint MODEL --out FOLDER` writes keypoint results to FOLDER/results.json, and "
    "Poses.to_coco(image_id) returns them in Python."
)


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
    other = _find_other_content(results)
    if other is not None or not isinstance(results, list):
        given, advice = other or (f"a {type(results).__name__}", _WRITE_RESULTS)
        log.error(
            "not a list of keypoint results",
            f"{source}: expected a list of entries with image_id, category_id, keypoints and score, got {given}",
            advice,
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
    try:
        results: list[dict[str, Any]] = load_file(path)
    except CocoFileError as error:
        if Path(path).suffix.lower() != ".jsonl":
            raise
        log = IssueLog()
        log.error("not a list of keypoint results", f"{path}: got JSON Lines, as of a video", _WRITE_RESULTS)
        raise log.to_error(str(path)) from error
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


def _find_other_content(content: Any) -> tuple[str, str] | None:
    """Returns a description of the content of another file of posedy or COCO, and advice; None if it is none."""
    if isinstance(content, Mapping):
        if "annotations" in content:
            return "an annotation file", _WRITE_RESULTS
        if "AP" in content:
            return "metrics", "Give the results.json in the folder of `posedy test`."
        return None
    entry = content[0] if isinstance(content, list) and content else None
    if not isinstance(entry, Mapping) or "keypoints" in entry:
        return None
    if "persons" in entry:
        return "the keypoints.json of `posedy predict`, which has no image ids", _WRITE_RESULTS
    if "bbox" in entry:
        return "boxes without keypoints", f"`posedy detect --eval` evaluates boxes. {_WRITE_RESULTS}"
    return None


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

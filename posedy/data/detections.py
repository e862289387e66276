"""Person boxes of a detector, in COCO's form for results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import CocoPersons
from posedy.data.findings import NAMED, CocoFileError, count_reasons, name_reasons, short
from posedy.data.tables import index_in, integer_column, load_json, number_column, number_rows, plausible
from posedy.geometry import xywh_to_xyxy


@dataclass(frozen=True, eq=False)
class Detections:
    """D person boxes on the images of a `CocoPersons`, in the order of the file.

    Attributes:
        path: the file.
        image_index: (D,) index of the image in the `CocoPersons`.
        boxes: (D, 4) xyxy in image pixels.
        scores: (D,).
        num_images: how many images the `CocoPersons` has.
        left_out: how many boxes of the file are not among the D, by reason.
    """

    path: Path
    image_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    num_images: int
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.scores)

    def summary(self) -> str:
        """One line: boxes, images, what was left out and why."""
        found = len(np.unique(self.image_index))
        return (
            f"{self.path.name}: {len(self)} boxes on {found} of {self.num_images} images; "
            f"left out: {name_reasons(self.left_out)}"
        )


def read_detections(path: Path | str, persons: CocoPersons, score_threshold: float = 0.0) -> Detections:
    """Reads a detector's boxes for the images of `persons`; images without a box are fine.

    Args:
        path: a JSON list of {"image_id", "bbox": [x, y, width, height], "score"} with "category_id" if there are
            boxes of other things too; a box without it counts as a person.
        persons: the images, and the category that persons have.
        score_threshold: boxes below it are left out.

    Raises:
        CocoFileError: if the file is not such a list, or none of its boxes can be used.
        OSError: if it cannot be read.
    """
    path = Path(path)
    entries = _load(path)
    image_ids, bad_ids = integer_column([entry.get("image_id") for entry in entries])
    rows, bad_rows = number_rows([entry.get("bbox") for entry in entries], 4)
    scores, bad_scores = number_column([entry.get("score") for entry in entries])
    for key, bad, wanted in (
        ("image_id", bad_ids, "an integer"),
        ("bbox", bad_rows, "a list of four numbers: x, y, width, height"),
        ("score", bad_scores, "a number"),
    ):
        if bad.any():
            named = [
                f"entry {index}: {short(entries[index][key]) if key in entries[index] else 'missing'}"
                for index in np.flatnonzero(bad)[:NAMED]
            ]
            raise CocoFileError(
                f"{path}: {bad.sum()} of {len(entries)} entries without a valid '{key}' ({'; '.join(named)}); "
                f"write {wanted}, or remove them"
            )
    categories = np.array([entry.get("category_id", persons.category_id) == persons.category_id for entry in entries])
    image_index = index_in(image_ids, persons.image_ids)
    finite = plausible(rows).all(axis=1) & plausible(scores)
    boxes = xywh_to_xyxy(np.where(finite[:, None], rows, 0)).astype(np.float32)
    reasons = {
        "of another category": ~categories.astype(bool),
        "on images outside the set": image_index < 0,
        "with NaN, infinity or beyond any photo": ~finite,
        "of no area": ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1),
        f"under the score threshold {score_threshold:g}": scores < score_threshold,
    }
    kept, left_out = count_reasons(reasons)
    if not kept.any():
        raise CocoFileError(
            f"{path}: none of its {len(entries)} boxes can be used: {name_reasons(left_out)}. Is it of the images of "
            f"{persons.annotations.name} (ids like {persons.image_ids[0]}), with category_id {persons.category_id} for "
            "persons?"
        )
    return Detections(
        path, image_index[kept], boxes[kept], scores[kept].astype(np.float32), len(persons.image_ids), left_out
    )


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        entries = load_json(path)
    except ValueError as error:
        raise CocoFileError(f"{path} is not JSON ({error}); fetch or write it again") from error
    if not isinstance(entries, list):
        raise CocoFileError(
            f"{path} holds a {type(entries).__name__} instead of a list of boxes, each with image_id, bbox and score: "
            "an annotation file is no file of detections; posedy detect writes such a list if given --annotations FILE"
        )
    if not entries:
        raise CocoFileError(f"{path}: the list is empty; let a detector fill it, with a low score threshold")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise CocoFileError(
                f"{path}: entry {index} is {short(entry)} instead of an object with image_id, bbox, score"
            )
    return entries
